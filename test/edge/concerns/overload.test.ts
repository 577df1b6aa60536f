// slow: takes about 10 s
/** A gateway that is itself overloaded refuses requests, so that requests in flight complete. */
import { once } from 'node:events'
import http2 from 'node:http2'
import type { Test } from 'tap'
import t from 'tap'
import { Agent, request } from 'undici'
import type { Resource } from '../../../plugins/edge/concerns/overload/load.ts'
import { Load, usedMemory } from '../../../plugins/edge/concerns/overload/load.ts'
import type { Priority } from '../../../plugins/edge/concerns/overload/options.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, get, startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const off = { eventLoopDelay: false, memory: false, requests: false, mode: 'enforce' } as const

function loadOf(t: Test, options: object, requests = { count: 0 }) {
  const changes: [Resource, boolean][] = []
  const load = new Load({ ...off, ...options }, requests, (...change) => changes.push(change), 0)
  t.teardown(() => load.close())
  let nowMs = 0
  const shortFor = (priority: Priority) => (load.isCalm ? null : load.shortage(priority))
  return {
    changes,
    shortFor,
    /** Fires the timer after each of these times. */
    ticks(...gaps: number[]) {
      for (const gap of gaps) {
        nowMs += gap
        load.tick(nowMs, usedMemory)
      }
      return shortFor('normal')
    },
    /** Fires it in time, with each of these shares of used memory. */
    uses(...shares: number[]) {
      for (const share of shares) {
        nowMs += 500
        load.tick(nowMs, () => share)
      }
      return shortFor('normal')
    }
  }
}

t.test('the loop lags after three late timers in a row, until one is on time', async (t) => {
  const { ticks, changes } = loadOf(t, { eventLoopDelay: 1000 })
  t.equal(ticks(500, 900, 500), null)
  t.equal(ticks(5000, 500), null, 'one long block is no lag')
  t.equal(ticks(2000, 2000, 500), null, 'two')
  t.equal(ticks(2000, 2000, 2000), 'event-loop')
  t.equal(ticks(2000), 'event-loop')
  t.equal(ticks(500), null)
  t.strictSame(changes, [
    ['event-loop', true],
    ['event-loop', false]
  ])
})

t.test('memory is short after three measurements in a row', async (t) => {
  const { uses, shortFor, changes } = loadOf(t, { memory: 0.5 })
  t.equal(uses(0.4, 0.9, 0.9, 0.4), null)
  t.equal(uses(0.6, 0.6, 0.51), 'memory')
  t.equal(shortFor('high'), null, 'up to 110 % of the limit')
  t.equal(uses(0.47, 0.47, 0.47), null)
  t.equal(shortFor('low'), 'memory', 'from 90 % of the limit on')
  t.equal(uses(0.56, 0.56, 0.56), 'memory')
  t.equal(shortFor('high'), 'memory')
  t.equal(uses(0.1), null)
  t.strictSame(
    changes.map(([, isShort]) => isShort),
    [true, false, true, false]
  )
  const used = usedMemory()
  t.ok(used > 0.001 && used < 1, `${used}`)
})

t.test('requests are refused by priority', async (t) => {
  const requests = { count: 0 }
  const { shortFor } = loadOf(t, { requests: 100 }, requests)
  const refused = (count: number) => {
    requests.count = count
    return (['low', 'normal', 'high'] as const).filter((priority) => shortFor(priority) === 'requests')
  }
  t.strictSame(refused(89), [])
  t.strictSame(refused(90), ['low'])
  t.strictSame(refused(99), ['low'])
  t.strictSame(refused(100), ['low', 'normal'])
  t.strictSame(refused(109), ['low', 'normal'])
  t.strictSame(refused(110), ['low', 'normal', 'high'])
})

const routes = [
  { name: 'all', match: { path: '/' }, service: 'any' },
  { name: 'batch', match: { path: '/batch' }, service: 'any', edge: { shedPriority: 'low' } },
  { name: 'payment', match: { path: '/payment' }, service: 'any', edge: { shedPriority: 'high' } }
]

t.test('the gateway responds with 503 and Retry-After while a real loop lags', async (t) => {
  const service = await startService((_request, response) => response.end('well'))
  t.teardown(service.close)
  const { port, close, log } = await startGateway(
    { services: { any: { instances: [service.url] } }, routes },
    { log: true }
  )
  t.teardown(close)
  t.equal((await get(port, '/')).status, 200)
  let blocking = true
  const block = () => {
    if (!blocking) return
    const end = performance.now() + 1700
    while (performance.now() < end);
    setTimeout(block, 5)
  }
  block()
  let response = await get(port, '/')
  while (response.status === 200) response = await get(port, '/')
  blocking = false
  t.match(response, {
    status: 503,
    headers: { 'retry-after': '1', 'proxy-status': 'jingwei; error=proxy_internal_error' }
  })
  t.match(JSON.parse(response.body), { code: 'JW_OUT_OF_CPU' })
  while (response.status !== 200) response = await get(port, '/')
  const levels = log.filter(({ msg }) => String(msg).startsWith('event loop')).map(({ level }) => level)
  t.strictSame(levels.slice(0, 2), [50, 30], 'an error line, then an info line')
})

t.test('the gateway responds with 503 while it uses more memory than it may', async (t) => {
  const service = await startService((_request, response) => response.end('well'))
  t.teardown(service.close)
  const edge = { overload: { memory: '0.001%' } }
  const gateway = await startGateway({ services: { any: { instances: [service.url] } }, routes, edge })
  t.teardown(gateway.close)
  t.equal((await get(gateway.port, '/')).status, 200, 'nothing is measured yet')
  await eventually(async () => (await get(gateway.port, '/')).status === 503)
  t.match(JSON.parse((await get(gateway.port, '/payment')).body), { code: 'JW_OUT_OF_MEMORY' })
})

for (const protocol of ['HTTP/1.1', 'TLS', 'HTTP/2'] as const) {
  t.test(`${protocol}: requests in flight are counted, each until its response ends`, async (t) => {
    const held: (() => void)[] = []
    const service = await startService((request, response) => {
      if (request.url?.endsWith('held') === true) held.push(() => response.end('late'))
      else response.end('well')
    })
    t.teardown(service.close)
    const gateway = await startGateway({
      services: { any: { instances: [service.url] } },
      edge: { overload: { requests: 10 } },
      routes,
      ...(protocol !== 'HTTP/1.1' && { listen: { tls: selfSigned(t), http2: protocol === 'HTTP/2' } })
    })
    t.teardown(gateway.close)
    const send = sender(t, gateway.url, protocol)
    const statuses = async () => {
      const all = await Promise.all(['/batch', '/', '/payment'].map((path) => send(path)))
      return all.map(({ status }) => status)
    }
    const pending = Array.from({ length: 9 }, () => send('/held'))
    await eventually(async () => held.length === 9)
    t.equal((await send('/batch')).status, 503, 'nine are in flight')
    t.equal((await send('/')).status, 200)
    pending.push(send('/held'))
    await eventually(async () => held.length === 10)
    const refused = await send('/')
    t.equal(refused.status, 503, 'ten are in flight')
    t.match(JSON.parse(refused.body), { code: 'JW_OUT_OF_CAPACITY' })
    t.equal((await send('/payment')).status, 200)
    for (const end of held) end()
    for (const { status, body } of await Promise.all(pending)) t.strictSame([status, body], [200, 'late'])
    await eventually(async () => (await statuses()).every((status) => status === 200))
    t.strictSame(await statuses(), [200, 200, 200])
  })
}

/** Returns a function that sends a GET request by a protocol. */
function sender(t: Test, url: string, protocol: string): (path: string) => Promise<{ status: number; body: string }> {
  if (protocol !== 'HTTP/2') {
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } })
    t.teardown(() => dispatcher.close())
    return async (path) => {
      const { statusCode, body } = await request(new URL(path, url), { dispatcher })
      return { status: statusCode, body: await body.text() }
    }
  }
  const session = http2.connect(url, { rejectUnauthorized: false })
  t.teardown(() => session.close())
  return async (path) => {
    const stream = session.request({ ':path': path })
    const [fields] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    let body = ''
    for await (const chunk of stream.setEncoding('utf8')) body += chunk
    return { status: Number(fields[':status']), body }
  }
}

t.test('requests of clients that leave do not stay counted', async (t) => {
  const service = await startService((request, response) => {
    if (request.url?.endsWith('held') !== true) response.end('well')
  })
  t.teardown(service.close)
  const edge = { overload: { requests: 2 } }
  const gateway = await startGateway({ services: { any: { instances: [service.url] } }, routes, edge })
  t.teardown(gateway.close)
  const statusIs = (status: number) => eventually(async () => (await get(gateway.port, '/batch')).status === status)
  for (let round = 0; round < 3; round++) {
    const clients = [1, 2].map(() => connect(gateway.port, 'GET /held HTTP/1.1\r\nhost: a\r\n\r\n'))
    await statusIs(503)
    for (const { socket } of clients) socket.destroy()
    await statusIs(200)
  }
})

t.test('settings without effect are faults', async (t) => {
  const base = { services: { any: { instances: ['http://127.0.0.1:1'] } }, routes }
  const fault = (edge: object) => {
    try {
      configOf({ ...base, edge })
      return 'none'
    } catch (error) {
      return (error as Error).message
    }
  }
  t.match(fault({ overload: false }), /routes\[1\]\.edge\.shedPriority: has no effect, since edge\.overload is off/)
  t.match(fault({ overload: off }), /routes\[1\]\.edge\.shedPriority: has no effect/)
  t.match(fault({ overload: { memory: '0%' } }), /edge\.overload\.memory: refuses every request/)
  t.equal(fault({ overload: { memory: '90%' } }), 'none')
})
