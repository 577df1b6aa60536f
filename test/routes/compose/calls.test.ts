// Calls of composed routes: order, failures, time limits, clients that leave.
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { startRawService } from '../../helpers/gateway.ts'
import { json, startComposed } from './services.ts'

t.test('calls without references run at the same time', async (t) => {
  const waiting: ServerResponse[] = []
  const meet = (_request: IncomingMessage, response: ServerResponse) => {
    waiting.push(response)
    if (waiting.length === 3) for (const [index, each] of waiting.entries()) json(each, { [`m${index}`]: index })
  }
  const calls = { a: { service: 'a', path: '/' }, b: { service: 'a', path: '/' }, c: { service: 'a', path: '/' } }
  const { url } = await startComposed(t, { services: { a: meet }, compose: { calls } })
  t.strictSame(await (await fetch(`${url}/c/1`)).json(), { m0: 0, m1: 1, m2: 2 })
})

t.test('a call waits for those whose responses it uses', async (t) => {
  const order: string[] = []
  const a = (request: IncomingMessage, response: ServerResponse) => {
    order.push(request.url!)
    json(response, { next: `${request.url!.slice(1)}x` }, { 'x-token': 'abc' })
  }
  const calls = {
    third: {
      service: 'a',
      path: '/{calls.second/next}',
      query: { token: '{calls.first.headers.x-token}' },
      group: 'third'
    },
    first: { service: 'a', path: '/1', include: false },
    second: { service: 'a', path: '/{calls.first/next}', query: { s: '{calls.first.status}' }, include: false }
  }
  const { url } = await startComposed(t, { services: { a }, compose: { calls } })
  t.strictSame(await (await fetch(`${url}/c/1`)).json(), { third: { next: '1x%3Fs%3D200x?token=abcx' } })
  t.strictSame(order, ['/1', '/1x?s=200', '/1x%3Fs%3D200x?token=abc'])
})

t.test('later parts replace members of earlier ones, in the order of the file', async (t) => {
  const slow = (_request: IncomingMessage, response: ServerResponse) =>
    void setTimeout(() => json(response, { x: 'a', y: 'a' }), 50)
  const b = (_request: IncomingMessage, response: ServerResponse) => json(response, { x: 'b' })
  const calls = { one: { service: 'a', path: '/' }, two: { service: 'b', path: '/' } }
  const { url } = await startComposed(t, { services: { a: slow, b }, compose: { calls } })
  t.strictSame(await (await fetch(`${url}/c/1`)).json(), { x: 'b', y: 'a' })
})

t.test('a required call that fails: the status by its kind, and no body of the service', async (t) => {
  const a = (_request: IncomingMessage, response: ServerResponse) => json(response, { secret: 'password' }, {}, 500)
  const good = (_request: IncomingMessage, response: ServerResponse) => json(response, {})
  const calls = { good: { service: 'good', path: '/' }, bad: { service: 'a', path: '/', group: 'bad' } }
  const { url, log, services } = await startComposed(t, { services: { a, good }, compose: { calls } })
  const response = await fetch(`${url}/c/1`)
  const body = await response.text()
  t.equal(response.status, 502)
  t.equal(JSON.parse(body).code, 'JW_UPSTREAM_STATUS')
  t.notMatch(body, /password|bad/)
  t.match(response.headers.get('proxy-status'), /jingwei; error=/)
  await eventually(() => log.some(({ msg }) => msg === 'request'))
  const line = log.find(({ msg }) => msg === 'request')!
  t.match(line, { route: 'composed', status: 502, error: 'JW_UPSTREAM_STATUS' })
  t.match(
    (line.calls as { call: string }[]).find(({ call }) => call === 'bad'),
    { call: 'bad', service: 'a', status: 500, error: 'JW_UPSTREAM_STATUS' }
  )
  await services.a!.close()
  t.equal((await fetch(`${url}/c/1`)).status, 502)
  t.match(await (await fetch(`${url}/c/1`)).json(), { code: 'JW_UPSTREAM_REFUSED' })
})

t.test('the access log has the calls and their durations', async (t) => {
  const a = (_request: IncomingMessage, response: ServerResponse) => json(response, { a: 1 })
  const { url, log } = await startComposed(t, {
    services: { a },
    compose: { calls: { one: { service: 'a', path: '/' } } }
  })
  await fetch(`${url}/c/1?secret=1`)
  await eventually(() => log.some(({ msg }) => msg === 'request'))
  const line = log.find(({ msg }) => msg === 'request')!
  t.match(line, { status: 200, answeredBy: 'compose', calls: [{ call: 'one', service: 'a', status: 200, ms: Number }] })
  t.notMatch(JSON.stringify(line), 'secret')
})

t.test('an optional call that fails: the response without its part, marked', async (t) => {
  const good = (_request: IncomingMessage, response: ServerResponse) => json(response, { id: 1 })
  const bad = (_request: IncomingMessage, response: ServerResponse) => json(response, { x: 1 }, {}, 503)
  const calls = {
    good: { service: 'good', path: '/' },
    bad: { service: 'bad', path: '/', group: 'bad', required: false },
    other: { service: 'bad', path: '/', group: 'other', required: false, default: { items: [] } },
    after: { service: 'good', path: '/{calls.bad/x}', group: 'after', required: false, default: null }
  }
  const { url } = await startComposed(t, { services: { good, bad }, compose: { calls } })
  for (const _time of [1, 2]) {
    const response = await fetch(`${url}/c/1`)
    t.equal(response.status, 200)
    t.strictSame(await response.json(), { id: 1, other: { items: [] }, after: null })
    t.equal(response.headers.get('x-jingwei-complete'), 'false')
    t.equal(response.headers.get('x-jingwei-missing'), 'after, bad, other')
    t.equal(response.headers.get('cache-control'), 'no-store')
    t.equal(response.headers.get('etag'), null)
  }
})

t.test('a required call that needs the response of a failed optional call', async (t) => {
  const good = (_request: IncomingMessage, response: ServerResponse) => json(response, { id: 1 })
  const bad = (_request: IncomingMessage, response: ServerResponse) => json(response, {}, {}, 503)
  const calls = {
    bad: { service: 'bad', path: '/', group: 'bad', required: false },
    after: { service: 'good', path: '/{calls.bad/x}' }
  }
  const { url } = await startComposed(t, { services: { good, bad }, compose: { calls } })
  t.equal((await fetch(`${url}/c/1`)).status, 502)
})

t.test('time limits: of a call, and of all', async (t) => {
  const good = (_request: IncomingMessage, response: ServerResponse) => json(response, { id: 1 })
  let aborted = 0
  const silent = (_request: IncomingMessage, response: ServerResponse) => void response.on('close', () => aborted++)
  const dripping = (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { 'content-type': 'application/json' }).write('{"a":')
    response.on('close', () => aborted++)
  }
  const services = { good, silent, dripping }
  const one = await startComposed(t, {
    services,
    compose: {
      calls: {
        good: { service: 'good', path: '/' },
        silent: { service: 'silent', path: '/', timeout: '50ms', required: false, group: 's' },
        dripping: { service: 'dripping', path: '/', timeout: '50ms', required: false, group: 'd' }
      }
    }
  })
  const partial = await fetch(`${one.url}/c/1`)
  t.strictSame(await partial.json(), { id: 1 })
  t.equal(partial.headers.get('x-jingwei-missing'), 'dripping, silent')
  await eventually(() => aborted === 2)
  const all = await startComposed(t, {
    services,
    compose: {
      timeout: '100ms',
      calls: { good: { service: 'good', path: '/' }, dripping: { service: 'dripping', path: '/', group: 'd' } }
    }
  })
  const late = await fetch(`${all.url}/c/1`)
  t.equal(late.status, 504)
  t.match(await late.json(), { code: 'JW_CALL_TIMEOUT', message: 'The service did not respond in time' })
  await eventually(() => aborted === 3)
  const optional = await startComposed(t, {
    services,
    compose: {
      timeout: '100ms',
      calls: {
        good: { service: 'good', path: '/' },
        dripping: { service: 'dripping', path: '/', group: 'd', required: false }
      }
    }
  })
  t.strictSame(await (await fetch(`${optional.url}/c/1`)).json(), { id: 1 }, 'the deadline ends optional calls')
})

t.test('a failure aborts the other calls', async (t) => {
  let aborted = 0
  const silent = (_request: IncomingMessage, response: ServerResponse) => void response.on('close', () => aborted++)
  const bad = (_request: IncomingMessage, response: ServerResponse) => json(response, {}, {}, 500)
  const calls = { silent: { service: 'silent', path: '/' }, bad: { service: 'bad', path: '/' } }
  const { url } = await startComposed(t, { services: { silent, bad }, compose: { calls } })
  t.equal((await fetch(`${url}/c/1`)).status, 502)
  await eventually(() => aborted === 1)
})

t.test('a client that leaves aborts all calls', async (t) => {
  let [begun, aborted] = [0, 0]
  const silent = (_request: IncomingMessage, response: ServerResponse) => {
    begun++
    response.on('close', () => aborted++)
  }
  const calls = { a: { service: 's', path: '/' }, b: { service: 's', path: '/', required: false } }
  const { url, log } = await startComposed(t, { services: { s: silent }, compose: { calls } })
  const request = http.get(`${url}/c/1`)
  request.on('error', () => {})
  await eventually(() => begun === 2)
  request.destroy()
  await eventually(() => aborted === 2)
  await eventually(() => log.some(({ msg }) => msg === 'request'))
  t.match(
    log.find(({ msg }) => msg === 'request'),
    { status: 499, error: 'JW_CLIENT_GONE' }
  )
  t.strictSame(
    log.filter(({ level }) => Number(level) >= 40),
    [],
    'nothing else is logged'
  )
})

t.test('a connection that is reset within a body', async (t) => {
  const raw = await startRawService((socket) => {
    socket.on('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"a":')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
  })
  t.teardown(raw.close)
  const more = { services: { raw: { instances: [raw.url], mesh: { retry: false } } } }
  const { url } = await startComposed(t, {
    services: {},
    compose: { calls: { a: { service: 'raw', path: '/' } } },
    more
  })
  const response = await fetch(`${url}/c/1`)
  t.equal(response.status, 502)
  t.match(await response.json(), { code: 'JW_UPSTREAM_RESET' })
})

t.test('HEAD, and a method that the route does not have', async (t) => {
  const seen: string[] = []
  const a = (request: IncomingMessage, response: ServerResponse) => {
    seen.push(request.method!)
    json(response, { id: 1 })
  }
  const { url } = await startComposed(t, {
    services: { a },
    compose: { calls: { a: { service: 'a', path: '/' } } },
    route: { match: { path: '/c/:id', methods: ['GET'] } }
  })
  const head = await fetch(`${url}/c/1`, { method: 'HEAD' })
  t.equal(head.status, 200)
  t.equal(head.headers.get('content-length'), '8')
  t.equal(await head.text(), '')
  t.strictSame(seen, ['GET'])
  const put = await fetch(`${url}/c/1`, { method: 'PUT', body: 'x' })
  t.equal(put.status, 405)
  t.equal(put.headers.get('allow'), 'GET, HEAD')
})

t.test('the settings of the mesh for one call', async (t) => {
  let asked = 0
  const flaky = (_request: IncomingMessage, response: ServerResponse) => {
    asked++
    json(response, { asked }, {}, asked === 1 ? 503 : 200)
  }
  const calls = { a: { service: 'a', path: '/', mesh: { retry: { attempts: 1, on: [503] } } } }
  const { url } = await startComposed(t, { services: { a: flaky }, compose: { calls } })
  t.strictSame(await (await fetch(`${url}/c/1`)).json(), { asked: 2 })
})
