// slow: takes about 5 s
/** The choice of a connection for a request, and the end of both. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { raw, refused, silent } from '../../helpers/mesh/servers.ts'
import { Heard, iterations, numbered, opener, poolTo } from './support.ts'

t.test('requests in sequence share one connection, HEAD too', async (t) => {
  const { url, requests } = await numbered(t)
  const { ask } = poolTo(t, url)
  for (const [method, path] of [['GET', '/a'], ['HEAD', '/b'], ['POST', '/c'], ['DELETE', '/d']] as const) {
    const heard = ask({ method, path })
    await heard.done
    t.equal(heard.body, method === 'HEAD' ? '' : `1${path}`)
  } // biome-ignore format: short
  t.strictSame(requests, ['1 /a', '1 /b', '1 /c', '1 /d'])
})

t.test('the connection used last is used next', async (t) => {
  const { url, held, count } = await numbered(t)
  const { ask } = poolTo(t, url)
  const three = [ask({ path: '/held1' }), ask({ path: '/held2' }), ask({ path: '/held3' })]
  await eventually(() => held.length === 3, 'three connections')
  for (const [i, heard] of three.entries()) {
    held[i]!()
    await heard.done
  }
  const last = three[2]!.body[0]
  for (let i = 0; i < 5; i++) {
    const heard = ask({ path: '/x' })
    await heard.done
    t.equal(heard.body, `${last}/x`)
  }
  t.equal(count(), 3)
})

t.test('at most maxConnections; queued requests are served in order', async (t) => {
  const { url, count, requests } = await numbered(t)
  const waits: string[] = []
  const { ask } = poolTo(t, url, { connections: 2, onWait: ({ path }) => void waits.push(path) })
  const order: string[] = []
  const all = Array.from({ length: 20 }, (_, i) =>
    ask({ path: `/${i}` }, new Heard({ end: () => order.push(`/${i}`) }))
  )
  await Promise.all(all.map(({ done }) => done))
  t.equal(count(), 2)
  t.strictSame(order.length, 20)
  const sent = requests.map((line) => Number(line.split('/')[1]))
  t.ok(
    sent.every((number, at) => Math.abs(number - at) <= 1),
    String(sent)
  )
  t.equal(waits.length, 20)
})

t.test('a later request does not overtake queued ones', async (t) => {
  const { url, held, requests } = await numbered(t)
  const { ask } = poolTo(t, url, { connections: 1 })
  const first = ask({ path: '/held' })
  await eventually(() => held.length === 1, 'the first request')
  const second = ask({ path: '/second' })
  await iterations(3)
  let third!: Heard
  first.on.end = () => {
    third = ask({ path: '/third' })
  }
  held[0]!()
  await second.done
  await third.done
  t.strictSame(requests, ['1 /held', '1 /second', '1 /third'])
})

t.test('a request aborted in the queue is reported once, and is not sent', async (t) => {
  const { url, held, requests } = await numbered(t)
  const withdrawals: ((reason: Error) => void)[] = []
  const { ask } = poolTo(t, url, { connections: 1, onWait: (_opts, withdraw) => void withdrawals.push(withdraw) })
  ask({ path: '/held' })
  await eventually(() => held.length === 1, 'the first request')
  const second = ask({ path: '/second' })
  const third = ask({ path: '/third' })
  await iterations(3)
  withdrawals[1]!(new Error('left'))
  withdrawals[1]!(new Error('left again'))
  t.strictSame([second.events, second.error?.message], [['error'], 'left'])
  held[0]!()
  await third.done
  withdrawals[2]!(new Error('late'))
  t.strictSame(third.events, ['start', '200', 'data', 'end'])
  t.strictSame(requests, ['1 /held', '1 /third'])
})

t.test('a connection without a waiting request serves the next one, or reaches its idle timeout', async (t) => {
  const { url, requests, sockets } = await numbered(t)
  const withdrawals: ((reason: Error) => void)[] = []
  const { ask } = poolTo(t, url, { onWait: (_opts, withdraw) => void withdrawals.push(withdraw) })
  const first = ask({ path: '/first' })
  await iterations(1)
  withdrawals[0]!(new Error('left'))
  await eventually(() => sockets.size === 1, 'the connection to open')
  await iterations(5)
  const second = ask({ path: '/second' })
  await second.done
  t.strictSame([first.events, requests], [['error'], ['1 /second']])
  const other = await numbered(t)
  const idle = poolTo(t, other.url, {
    onWait: (_opts, withdraw) => void queueMicrotask(() => withdraw(new Error('left')))
  })
  idle.ask()
  await eventually(() => other.sockets.size === 1, 'the connection to open')
  await eventually(() => other.sockets.size === 0, 'its end', 6000)
})

t.test('an abort closes the connection at once, and is reported once', async (t) => {
  const partial = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'
  for (const [bytes, hook, events] of [
    ['', null, ['start', 'error']],
    ['HTTP/1.1 200', null, ['start', 'error']],
    [partial, 'data', ['start', '200', 'data', 'error']],
    [partial, 'head', ['start', '200', 'error']]
  ] as const) {
    let requests = 0
    const { url, sockets } = await raw(t, (socket) => socket.once('data', () => socket.write(bytes, () => requests++)))
    const { ask } = poolTo(t, url)
    const reason = new Error('enough')
    const abort = (controller: { abort(reason: Error): void } | null) => controller!.abort(reason)
    const heard = ask({}, new Heard(hook === null ? {} : { [hook]: abort }))
    await eventually(() => requests === 1, 'the request at the service')
    if (hook === null) abort(heard.controller)
    await heard.done
    abort(heard.controller)
    t.equal(heard.error, reason)
    t.strictSame([heard.controller!.aborted, heard.controller!.reason], [true, reason])
    await eventually(() => sockets.size === 0, 'the end of the connection')
    t.strictSame(heard.events, events)
  }
  const { url, count } = await numbered(t)
  const { ask } = poolTo(t, url)
  const heard = ask({}, new Heard({ start: (controller) => controller.abort(new Error('no')) }))
  await heard.done
  t.strictSame(heard.events, ['start', 'error'])
  const next = ask({ path: '/x' })
  await next.done
  t.strictSame([next.body, count()], ['1/x', 1], 'if nothing was sent, the connection is kept')
})

t.test('a connection that is destroyed while a body is read', async (t) => {
  const { url } = await raw(t, (socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'))
  })
  const { ask } = poolTo(t, url)
  const heard = ask()
  await heard.done
  t.strictSame([heard.events, heard.error?.code], [['start', '200', 'data', 'error'], 'JW_UPSTREAM_RESET'])
})

t.test('requests fail if connections cannot be opened', async (t) => {
  const url = await refused()
  const { ask, pool } = poolTo(t, url, { connections: 2 })
  const all = Array.from({ length: 5 }, () => ask())
  const upgrade = ask({ upgrade: 'websocket' })
  await Promise.all([...all, upgrade].map(({ done }) => done))
  for (const { events, error } of [...all, upgrade]) t.strictSame([events, error?.code], [['error'], 'ECONNREFUSED'])
  await pool.close()
  // A peer that never shakes hands.
  const secure = (await silent(t)).url.replace('http:', 'https:')
  const slow = poolTo(t, secure, { open: opener(secure, null, 200) })
  const [a, b] = [slow.ask(), slow.ask()]
  await Promise.all([a.done, b.done])
  t.strictSame([a.error?.code, b.error?.code], ['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_CONNECT_TIMEOUT'])
  const none = poolTo(t, url, {
    open: () => {
      throw new Error('no credentials')
    }
  })
  const thrown = none.ask()
  await thrown.done
  t.equal(thrown.error?.message, 'no credentials')
})

t.test('a server that accepts connections and closes before it responds', async (t) => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { ask } = poolTo(t, `http://127.0.0.1:${(server.address() as { port: number }).port}`, { connections: 1 })
  const all = Array.from({ length: 10 }, () => ask())
  await Promise.all(all.map(({ done }) => done))
  for (const { events } of all) t.strictSame(events, ['start', 'error'])
})
