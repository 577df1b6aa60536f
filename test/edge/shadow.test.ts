/** Refusals of concerns: they are counted; in shadow mode they are also listed in the access line, and the request goes on. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig } from '../../plugins/config.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { startEcho, startWith } from '../helpers/gateway.ts'
import { folder } from '../helpers/plugins.ts'

/** A concern that refuses in every phase and in every way that Fastify has; x-refuse names one. */
const guard = `
const refusal = (code) => Object.assign(new Error('no'), { code, statusCode: 403 })
export default {
  name: 'guard',
  options: {
    type: 'object',
    additionalProperties: false,
    properties: { mode: { type: 'string', enum: ['enforce', 'shadow'], default: 'enforce' } }
  },
  async plugin() {
    return (options, route, shadow, refused) => {
      const hook = (request, reply, ...rest) => {
        const done = rest.at(-1)
        const way = request.headers['x-refuse'] ?? ''
        reply.header('x-guard', 'seen')
        reply.code(403).header('www-authenticate', 'Guard')
        request.refusalReason = 'guard_' + way
        if (way === 'callback') return done(refusal('GUARD_CALLBACK'))
        if (way === 'throw') throw refusal('GUARD_THROW')
        if (way === 'fault') throw new Error('a fault of the guard')
        if (way.startsWith('code-')) throw refusal(way)
        if (way === 'response') {
          if (shadow === null) {
            refused(request, 'GUARD_LOGIN')
            return reply.code(401).send('log in')
          }
          shadow(request, 'GUARD_LOGIN', 'guard_login')
        }
        reply.code(200).removeHeader('www-authenticate')
        request.refusalReason = null
        done()
      }
      const promising = async (request, reply) => {
        if (request.headers['x-refuse'] === 'reject') throw refusal('GUARD_REJECT')
      }
      const late = (phase) => async (request) => {
        if (request.headers['x-refuse'] === phase) throw refusal('GUARD_' + phase.toUpperCase())
      }
      return {
        onRequest: [hook, promising],
        preParsing: late('preparsing'),
        preValidation: late('prevalidation'),
        preHandler: late('prehandler')
      }
    }
  }
}
`

async function start(t: Test, protocol: Protocol, url: string) {
  const config = {
    admin: false,
    listen: listenFor(t, protocol),
    services: { any: { instances: [url] } },
    edge: { guard: { mode: 'shadow' } },
    routes: [
      { name: 'shadowed', match: { path: '/' }, service: 'any' },
      { name: 'enforced', match: { path: '/enforced' }, service: 'any', edge: { guard: {} } }
    ],
    plugins: [{ path: './guard.mjs' }]
  }
  const root = await folder(t, { 'guard.mjs': guard, 'gateway.yaml': JSON.stringify(config) })
  const gateway = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const refusals = async (name = 'jingwei_edge_shadow_refusals_total') => {
    const text = await gateway.server.metrics.metrics()
    return text.split('\n').filter((line) => line.startsWith(`${name}{`))
  }
  return { gateway, lineOf, refusals }
}

const ways: readonly (readonly [way: string, error: string, reason?: string])[] = [
  ['callback', 'GUARD_CALLBACK', 'guard_callback'],
  ['throw', 'GUARD_THROW', 'guard_throw'],
  ['reject', 'GUARD_REJECT'],
  ['preparsing', 'GUARD_PREPARSING'],
  ['prevalidation', 'GUARD_PREVALIDATION'],
  ['prehandler', 'GUARD_PREHANDLER'],
  ['fault', 'JW_INTERNAL', 'guard_fault'],
  ['response', 'GUARD_LOGIN', 'guard_login']
]

for (const protocol of protocols) {
  t.test(`over ${protocol}, a refusal in shadow mode is counted and marked, and the request goes on`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const { gateway, lineOf, refusals } = await start(t, protocol, service.url)
    const { ask } = anyClient(t, protocol, gateway.port)
    t.strictSame(await refusals(), ['jingwei_edge_shadow_refusals_total{concern="guard",route="shadowed"} 0'])
    for (const [index, [way, error, reason]] of ways.entries()) {
      const { status, headers, body } = await ask('/x', { method: 'POST', headers: { 'x-refuse': way }, body: 'body' })
      t.equal(status, 200, way)
      t.equal(JSON.parse(body.toString()).body, 'body', way)
      t.equal(headers['www-authenticate'], undefined, `${way}: no field of the refusal is sent`)
      const line = await lineOf(index)
      const shadow = [{ concern: 'guard', error, ...(reason !== undefined && { reason }) }]
      t.match(line, { status: 200, route: 'shadowed', shadow }, way)
      t.notOk('reason' in line || 'error' in line, way)
    }
    t.strictSame(await refusals(), [
      `jingwei_edge_shadow_refusals_total{concern="guard",route="shadowed"} ${ways.length}`
    ])
    const faults = gateway.log.filter(({ level }) => level === 50)
    t.strictSame(
      faults.map(({ msg }) => msg),
      ['a concern in shadow mode failed: the request goes on'],
      'a fault of the concern is logged'
    )

    const allowed = await ask('/x')
    t.match(
      allowed,
      { status: 200, headers: { 'x-guard': 'seen' } },
      'what the concern does to an allowed request stays'
    )
    t.notOk('shadow' in (await lineOf(ways.length)))
    t.strictSame(await refusals('jingwei_edge_refusals_total'), [], 'nothing was refused')
  })

  t.test(`over ${protocol}, the same refusals fail the request without shadow mode`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const { gateway, lineOf, refusals } = await start(t, protocol, service.url)
    const { ask } = anyClient(t, protocol, gateway.port)
    t.strictSame(await refusals('jingwei_edge_refusals_total'), [], 'no series before the first refusal')
    for (const [index, [way]] of ways.entries()) {
      const { status } = await ask('/enforced', { headers: { 'x-refuse': way } })
      t.equal(status, way === 'fault' ? 500 : way === 'response' ? 401 : 403, way)
      t.notOk('shadow' in (await lineOf(index)), way)
    }
    t.equal((await ask('/enforced')).status, 200)
    t.strictSame(
      await refusals('jingwei_edge_refusals_total'),
      ways.map(([, code]) => `jingwei_edge_refusals_total{concern="guard",route="enforced",code="${code}"} 1`)
    )
    for (let i = 0; i < 40; i++) await ask('/enforced', { headers: { 'x-refuse': `code-${i}` } })
    const series = await refusals('jingwei_edge_refusals_total')
    t.equal(series.length, 33, 'the codes of a concern are bounded')
    t.match(series.at(-1), / 16$/)
    t.match(series.at(-1), 'code="(other)"')
  })
}

t.test('a WebSocket that would have been refused opens', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { gateway, lineOf } = await start(t, 'HTTP/1.1', service.url)
  const { peer } = await open(gateway.port, '/x', ['X-Refuse: throw'])
  peer.send(1, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  peer.close(1000)
  t.match(await lineOf(0), { status: 101, shadow: [{ concern: 'guard', error: 'GUARD_THROW' }] })
})

t.test('routes and the order of concerns show the shadow mode', async (t) => {
  const { gateway } = await start(t, 'HTTP/1.1', 'http://127.0.0.1:1')
  const shown = (path: string) => gateway.server.edgeOrder.namesOn({ edge: { guard: { mode: path } } as object })
  t.equal(shown('shadow').at(-1), 'guard (shadow)')
  t.equal(shown('enforce').at(-1), 'guard')
})
