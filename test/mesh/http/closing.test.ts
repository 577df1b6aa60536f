/** Closing a pool, and handlers that misbehave. */
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { silent } from '../../helpers/mesh/servers.ts'
import { Heard, iterations, numbered, poolTo } from './support.ts'

t.test('close() waits for requests in flight and queued ones, and refuses further ones', async (t) => {
  const { url, held, sockets } = await numbered(t)
  const { ask, pool } = poolTo(t, url, { connections: 1 })
  const first = ask({ path: '/held' })
  const second = ask({ path: '/second' })
  await eventually(() => held.length === 1, 'the first request')
  let closed = 0
  const closing = [pool.close(), pool.close()].map((each) => each.then(() => closed++))
  const late = ask()
  t.strictSame([late.events, late.error?.code], [['error'], 'JW_INSTANCE_REMOVED'])
  await iterations(5)
  t.equal(closed, 0)
  held[0]!()
  await Promise.all(closing)
  t.strictSame([first.events.at(-1), second.events.at(-1)], ['end', 'end'])
  await eventually(() => sockets.size === 0, 'the connections to close')
  await pool.close()
  const unused = poolTo(t, url).pool
  await unused.close()
  const fresh = poolTo(t, url)
  const just = fresh.ask({ path: '/just' })
  await fresh.pool.close()
  t.equal(just.body, '2/just')
})

t.test('destroy() fails all requests, and completes close()', async (t) => {
  const { url, requests, sockets } = await numbered(t)
  const { ask, pool } = poolTo(t, url, { connections: 2 })
  const running = ask({ path: '/never' })
  const other = ask({ path: '/never' })
  await eventually(() => requests.length === 2, 'both requests')
  const waiting = ask()
  await iterations(2)
  const arrived = ask()
  const closing = pool.close()
  pool.destroy()
  for (const heard of [running, other, waiting, arrived]) {
    t.strictSame([heard.events.at(-1), heard.error?.code], ['error', 'JW_INSTANCE_REMOVED'])
  }
  await closing
  await eventually(() => sockets.size === 0, 'the connections to close')
  t.equal(ask().error?.code, 'JW_INSTANCE_REMOVED')
  const connecting = poolTo(t, (await silent(t)).url.replace('http:', 'https:'))
  const one = [connecting.ask(), connecting.ask({ upgrade: 'websocket' })]
  await iterations(2)
  connecting.pool.destroy()
  await Promise.all(one.map(({ done }) => done))
  for (const { error } of one) t.equal(error?.code, 'JW_INSTANCE_REMOVED')
  await connecting.pool.close()
})

t.test('the pool can be destroyed in each callback', async (t) => {
  for (const hook of ['start', 'head', 'data', 'end', 'error'] as const) {
    const { url, sockets } = await numbered(t)
    const { ask, pool } = poolTo(t, url, { connections: 1 })
    if (hook !== 'error') await ask().done // so that one is idle
    const destroy = () => pool.destroy()
    const abort = (controller: { abort(reason: Error): void }) => controller.abort(new Error('no'))
    const heard = ask({}, new Heard(hook === 'error' ? { head: abort, error: destroy } : { [hook]: destroy }))
    const same = ask()
    const upgrade = ask({ upgrade: 'x' })
    await Promise.all([heard, same, upgrade].map(({ done }) => done))
    t.equal(heard.events.filter((event) => event === 'end' || event === 'error').length, 1, hook)
    for (const { error } of [same, upgrade]) t.equal(error?.code, 'JW_INSTANCE_REMOVED', hook)
    await pool.close()
    await iterations(5)
    await eventually(() => sockets.size === 0, 'the connections to close')
  }
})

t.test('a request can be dispatched in each callback', async (t) => {
  const { url } = await numbered(t)
  for (const connections of [1, 10]) {
    for (const hook of ['start', 'head', 'data', 'end'] as const) {
      const { ask } = poolTo(t, url, { connections })
      let inner!: Heard
      const heard = ask({ path: '/outer' }, new Heard({ [hook]: () => (inner = ask({ path: '/inner' })) }))
      await heard.done
      await inner.done
      t.match([heard.body, inner.body], [/^\d+\/outer$/, /^\d+\/inner$/])
    }
  }
})

t.test('exceptions of handlers fail their request', async (t) => {
  const broken = new Error('broken')
  const thrower = () => {
    throw broken
  }
  const { url, sockets } = await numbered(t)
  for (const hook of ['start', 'sent', 'head', 'data', 'end'] as const) {
    const { ask } = poolTo(t, url)
    const heard = ask({ method: 'PUT', body: 'x' }, new Heard({ [hook]: thrower }))
    await eventually(() => heard.error !== null, 'the error of the handler')
    t.equal(heard.error, broken, hook)
    const next = ask()
    await next.done
    t.equal(next.status, 200)
  }
  const { ask, pool } = poolTo(t, url)
  const stubborn = ask({ path: '/never' }, new Heard({ error: thrower }))
  await eventually(() => stubborn.controller !== null, 'the start of the request')
  t.throws(() => stubborn.controller!.abort(new Error('enough')), broken)
  await pool.close()
  await eventually(() => sockets.size <= 5, 'the end of the connection')
})

t.test('a closed pool leaves no timers, connects or warnings', async (t) => {
  const { url } = await numbered(t)
  const { ask, pool } = poolTo(t, url)
  const warnings: Error[] = []
  const warn = (warning: Error) => void warnings.push(warning)
  process.on('warning', warn)
  for (let i = 0; i < 30; i++) await Promise.all(Array.from({ length: 5 }, () => ask().done))
  const client = () =>
    process.getActiveResourcesInfo().filter((kind) => /^(Timeout|Immediate|TCPConnectWrap)$/.test(kind))
  await pool.close()
  await iterations(3)
  t.strictSame(client(), [])
  process.off('warning', warn)
  t.strictSame(warnings, [])
})
