/** Log lines of the guards of plugins, for an error that no frame of Fastify would catch. */
import { EventEmitter } from 'node:events'
import { setImmediate as nextIteration } from 'node:timers/promises'
import t from 'tap'
import type { PluginOwner } from '../../plugins/operations/fault-owners.ts'
import { FaultOwners, OwnerContexts } from '../../plugins/operations/fault-owners.ts'
import { guardedErrorHandler } from '../../plugins/operations/guarded-handler.ts'
import { guardedHook } from '../../plugins/operations/guarded-hook.ts'
import { eventually } from '../helpers/eventually.ts'

const err = new Error('cannot write')

function exchange(hookTimeoutMs: number) {
  const lines: Record<string, unknown>[] = []
  const log = { error: (fields: object, msg: string) => void lines.push({ ...fields, msg }) }
  const raw = Object.assign(new EventEmitter(), {
    destroyed: false,
    destroy: () => Object.assign(raw, { destroyed: true })
  })
  const reply = {
    raw,
    log,
    statusCode: 200,
    send: () => {
      throw err
    }
  }
  const owner = { plugin: 'audit', owners: new FaultOwners(new OwnerContexts()), hookTimeoutMs } as PluginOwner
  return { lines, raw, reply, owner, request: { log, raw } }
}

t.test('an error after a hook has ended is logged with plugin, hook, status and consequence', async (t) => {
  const { lines, raw, reply, owner, request } = exchange(0)
  const hook = guardedHook('preHandler', async () => {}, owner)
  hook(request, reply, () => {
    throw err
  })
  await nextIteration()
  const fields = { plugin: 'audit', hook: 'preHandler', status: 200, err }
  const msg = 'request failed after preHandler of plugin audit ended: connection closed'
  t.strictSame(lines, [{ ...fields, msg }])
  t.ok(raw.destroyed)
})

t.test('an error handler that timed out is logged with plugin, status and consequence', async (t) => {
  const { lines, raw, reply, owner, request } = exchange(1)
  guardedErrorHandler(() => {}, owner)(new Error('first'), request, reply)
  await eventually(() => raw.destroyed)
  t.match(lines.at(-1), {
    plugin: 'audit',
    status: 200,
    err,
    msg: 'request failed: no response after the error handler of plugin audit timed out; connection closed'
  })
  raw.emit('close')
})
