// slow: takes about 19 s
// Error handlers of plugins: they render errors, and what the error table says of the gateway and its services stays.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { startWith } from '../helpers/gateway.ts'
import { folder, service } from '../helpers/plugins.ts'

const plugin = `
import { Readable } from 'node:stream'

class OutOfStock extends Error { item = 'tea' }

const handlers = {
  renders: (error, request, reply) => void reply.code(418).header('proxy-status', 'x').send(shown(error)),
  returns: async (error, request, reply) => {
    reply.code(error.statusCode ?? 500)
    return shown(error)
  },
  'leaves the status': (error, request, reply) => void reply.send(shown(error)),
  'passes on': (error, request, reply) => void reply.send(error),
  rethrows: (error) => { throw error },
  rejects: async (error) => { throw error },
  throws: () => { throw new Error('a fault of the handler') },
  'rejects with another': async () => { throw new Error('a fault of the handler') },
  'never responds': () => {},
  'never settles': () => new Promise(() => {}),
  'responds late': (error, request, reply) => void setTimeout(() => reply.send('late'), 20),
  'sends a cycle': (error, request, reply) => {
    const cycle = {}
    cycle.own = cycle
    reply.send(cycle)
  },
  'returns a BigInt': async () => ({ own: 1n }),
  'sends a number as text': (error, request, reply) => void reply.type('text/plain').send(5),
  'sends a stream that fails': (error, request, reply) => void reply.send(new Readable({ read () { this.destroy(new Error('secret')) } })),
  'sets a bad header': (error, request, reply) => void reply.header('x-own', 'a\\nb').send('own'),
  'sets a serializer that throws': (error, request, reply) =>
    void reply.serializer(() => { throw new Error('secret') }).send({ own: true })
}

function shown (error) {
  return { own: error.message, code: error.code, status: error.statusCode, item: error.item }
}

export default async function own (fastify, { prefix }) {
  fastify.setErrorHandler(function handle (error, request, reply) {
    return handlers[request.headers['x-handler']](error, request, reply)
  })
  fastify.addHook('onRequest', async ({ url }) => {
    if (url === '/whole/stock') throw new OutOfStock('none left')
    if (url === '/whole/busy') throw Object.assign(new Error('busy'), { statusCode: 503, expose: true })
    if (url === '/whole/pay') throw Object.assign(new Error('first pay'), { statusCode: 402, code: 'PAY' })
  })
  fastify.addHook('onRequest', async ({ headers }, reply) => {
    if (headers['x-wrap'] === undefined) return
    const { send } = reply
    reply.send = function (payload) {
      reply.header('x-wrapped', [reply.getHeader('x-wrapped') ?? [], payload instanceof Error ? 'error' : 'payload'].flat().join(' '))
      return send.call(this, payload)
    }
  })
  for (const name of ['preSerialization', 'onSend']) {
    fastify.addHook(name, async ({ headers }, reply, payload) => {
      if (headers['x-sends'] === name) return reply.code(222).send('by a hook')
      if (headers['x-fails'] === name) throw new Error('secret of ' + name)
      return payload
    })
  }
  fastify.addHook('onSend', ({ headers }, reply, payload, done) => {
    if (headers['x-sends'] === 'callback') reply.code(222).send('by a hook')
    done(null, payload)
  })
  fastify.addHook('onSend', async ({ url }, reply, payload) => {
    if (url === '/whole/late' && reply.getHeader('x-whole') === 'yes') throw new OutOfStock('none left')
    return payload
  })
  fastify.get('/own/stock', async () => { throw new OutOfStock('none left') })
  fastify.get('/own/call', async ({ mesh }) => mesh.json('dead', '/'))
  fastify.get('/own/route', {
    errorHandler: (error, request, reply) => void reply.code(error.statusCode).send({ ofRoute: error.code })
  }, async ({ mesh }) => mesh.json('dead', '/'))
}`

async function started(t: Test, protocol: Protocol, entry: object = {}) {
  const whole = await service(t, (request, response) => {
    if (request.url !== '/silent')
      response.writeHead(200, { 'x-whole': 'yes', 'content-type': 'text/plain' }).end('whole')
  })
  const text = JSON.stringify({
    listen: listenFor(t, protocol),
    admin: false,
    mesh: { retry: false, attemptTimeout: '1s' },
    services: { whole: { instances: [whole] }, dead: { instances: ['http://127.0.0.1:1'] } },
    routes: ['whole', 'dead'].map((name) => ({
      name,
      service: name,
      match: { path: `/${name}` },
      path: { strip: `/${name}` }
    })),
    plugins: [{ path: './own.mjs', ...entry }]
  })
  const root = await folder(t, { 'own.mjs': plugin })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml')), { log: true })
  t.teardown(gateway.close)
  const client = anyClient(t, protocol, gateway.port)
  const ask = async (path: string, handler: string, more: Record<string, string> = {}) => {
    gateway.log.length = 0
    const { status, headers, body, isWhole } = await client.ask(path, { headers: { 'x-handler': handler, ...more } })
    t.ok(isWhole, `${path}, ${handler}`)
    await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
    const line = gateway.log.find(({ msg }) => msg === 'request')!
    return { status, proxyStatus: headers['proxy-status'], headers, body: String(body), line }
  }
  return { ...gateway, client, ask }
}

const failures: readonly (readonly [path: string, status: number, code: string, type: string, message: string])[] = [
  ['/dead', 502, 'JW_UPSTREAM_REFUSED', 'connection_refused', 'The service refused the connection'],
  ['/whole/silent', 504, 'JW_ATTEMPT_TIMEOUT', 'http_response_timeout', 'The service did not respond in time']
]

/** Handlers whose payload Fastify cannot send. */
const unsendable = [
  'sends a cycle',
  'returns a BigInt',
  'sends a number as text',
  'sends a stream that fails',
  'sets a bad header',
  'sets a serializer that throws'
]

for (const protocol of protocols) {
  t.test(protocol, { timeout: 120_000 }, async (t) => {
    const warnings: Error[] = []
    const onWarning = (warning: Error) => void warnings.push(warning)
    process.on('warning', onWarning)
    t.teardown(() => process.off('warning', onWarning))
    const { ask, client, log, server } = await started(t, protocol)

    for (const [path, status, code, type, message] of failures) {
      const proxyStatus = `jingwei; error=${type}`
      for (const handler of ['renders', 'returns', 'leaves the status']) {
        const got = await ask(path, handler)
        t.match(got, { status, proxyStatus, line: { status, error: code } }, `${path}, ${handler}`)
        t.strictSame(JSON.parse(got.body), { own: message, code, status }, `${handler}: the error has no details`)
      }
      for (const handler of ['passes on', 'rethrows', 'rejects', 'throws', 'rejects with another']) {
        const got = await ask(path, handler)
        t.match(got, { status, proxyStatus, line: { status, error: code } }, `${path}, ${handler}`)
        t.match(JSON.parse(got.body), { code, message, statusCode: status }, `${handler}: the body of the gateway`)
        const faults = log.filter(({ level }) => level === 50)
        t.equal(
          faults.length > 0,
          ['throws', 'rejects with another'].includes(handler),
          `${handler}: number of logged faults`
        )
        if (faults.length > 0) t.match(faults[0], { plugin: 'own', msg: /a fault of the handler/ })
      }
      for (const handler of unsendable) {
        const got = await ask(path, handler)
        t.match(got, { status, proxyStatus, line: { status, error: code } }, `${path}, ${handler}`)
        t.match(JSON.parse(got.body), { code, message, statusCode: status }, `${handler}: the body of the gateway`)
        const faults = log.filter(({ level }) => level === 50)
        t.equal(faults.length, 1, `${handler}: number of logged faults`)
      }
      t.equal((await ask(path, 'renders', { 'x-wrap': '1' })).headers['x-wrapped'], 'error payload', path)
      if (path === '/dead') t.equal((await ask(path, 'rethrows')).line.cause, 'ECONNREFUSED')
    }

    for (const path of ['/whole/stock', '/whole/late', '/own/stock']) {
      const stock = await ask(path, 'renders')
      t.match(stock, { status: 418, line: { status: 418, error: 'JW_PLUGIN_FAILED' } }, path)
      t.match(
        JSON.parse(stock.body),
        { own: 'none left', item: 'tea' },
        `${path}: the handler gets the plugin's own error`
      )
      t.equal(stock.headers['x-whole'], undefined, 'headers of the service’s response are removed')
      t.equal((await ask(path, 'leaves the status')).status, 500, path)
      const passed = await ask(path, 'passes on')
      t.match(JSON.parse(passed.body), { code: 'JW_PLUGIN_FAILED', message: 'A plugin of the gateway failed' }, path)
    }
    for (const handler of unsendable) {
      const { status, body, line } = await ask('/own/stock', handler)
      t.equal(status, 500, `an own route, ${handler}`)
      t.match(JSON.parse(body), { statusCode: 500, code: /^JW_/, requestId: line.requestId }, handler)
      t.notMatch(body, /secret/, handler)
    }
    for (const path of ['/dead', '/whole', '/own/stock']) {
      for (const hook of ['preSerialization', 'onSend']) {
        for (const handler of ['passes on', 'returns']) {
          const { status, body, line } = await ask(path, handler, { 'x-fails': hook })
          if (path === '/whole' && hook === 'preSerialization') t.equal(body, 'whole')
          else {
            const about = `${path}, ${handler}, after ${hook}`
            t.match(JSON.parse(body), { statusCode: status, code: line.error, requestId: line.requestId }, about)
            t.notMatch(body, /secret|own/, about)
          }
        }
      }
    }
    for (const handler of ['returns', 'leaves the status']) {
      t.match(await ask('/whole/pay', handler), { status: 402, body: /first pay/, line: { error: 'PAY' } })
      t.match(await ask('/whole/busy', handler), { status: 503, body: /busy/ })
    }
    t.match(await ask('/whole/busy', 'passes on'), { status: 503, body: /busy/ })
    t.notOk(
      log.some(({ level }) => level === 50),
      'a 4xx or 503 of a plugin is not logged as an error'
    )

    const called = await ask('/own/call', 'returns')
    const proxyStatus = 'jingwei; error=connection_refused'
    t.match(
      called,
      { status: 502, proxyStatus, line: { error: 'JW_UPSTREAM_REFUSED' } },
      'a failed call of an own route'
    )
    t.equal((await ask('/own/call', 'renders')).status, 418, 'the handler decides the status of an own route')
    t.match(await ask('/own/route', 'renders'), { status: 502, proxyStatus, body: '{"ofRoute":"JW_UPSTREAM_REFUSED"}' })

    log.length = 0
    await client.leave('/whole/silent', () => eventually(() => server.mesh.status()[0]!.active === 1), {
      headers: { 'x-handler': 'renders' }
    })
    await eventually(() => log.some(({ msg }) => msg === 'request'))
    t.match(
      log.find(({ msg }) => msg === 'request'),
      { status: 499, error: 'JW_CLIENT_GONE' }
    )
    t.equal((await ask('/whole', 'renders')).body, 'whole')
    t.strictSame(
      warnings.filter(({ message }) => /errorHandler/.test(message)),
      [],
      'Fastify does not warn of a second error handler'
    )
  })
}

t.test('with a prefix, an error handler is for the own routes of the plugin', async (t) => {
  const { ask } = await started(t, 'HTTP/1.1', { prefix: '/bff' })
  t.match(JSON.parse((await ask('/dead', 'renders')).body), { code: 'JW_UPSTREAM_REFUSED', statusCode: 502 })
  t.match(await ask('/bff/own/call', 'returns'), { status: 502, body: /"own":"The service refused/ })
})

for (const protocol of protocols) {
  t.test(`an error handler that does not respond is timed out, over ${protocol}`, async (t) => {
    const { ask, log } = await started(t, protocol, { hookTimeout: '300ms' })
    const message = 'plugin own failed in error handler: it did not respond within 300 ms'
    for (const handler of ['never responds', 'never settles']) {
      const dead = await ask('/dead', handler)
      t.match(dead, { status: 502, proxyStatus: 'jingwei; error=connection_refused' }, handler)
      t.match(JSON.parse(dead.body), { code: 'JW_UPSTREAM_REFUSED', requestId: dead.line.requestId }, handler)
      t.ok(
        log.some(({ msg, plugin }) => msg === message && plugin === 'own'),
        `${handler}: number of logged faults`
      )
      const own = await ask('/own/stock', handler)
      t.match(own, { status: 500, line: { error: 'JW_PLUGIN_FAILED' } }, handler)
      t.match(JSON.parse(own.body), { code: 'JW_PLUGIN_FAILED', requestId: own.line.requestId }, handler)
    }
    t.match(await ask('/dead', 'responds late'), { status: 502, body: 'late' })
  })
}

for (const protocol of protocols) {
  t.test(`reply.send() within an onSend hook fails the request, over ${protocol}`, async (t) => {
    const { ask, log } = await started(t, protocol)
    for (const path of ['/whole', '/dead', '/own/stock']) {
      for (const kind of ['onSend', 'callback']) {
        for (const handler of ['passes on', 'returns']) {
          const { status, body, line } = await ask(path, handler, { 'x-sends': kind })
          const about = `${path}, ${kind}, ${handler}`
          t.match(JSON.parse(body), { statusCode: status, code: line.error, requestId: line.requestId }, about)
          t.ok(status >= 500, about)
          t.notMatch(body, /secret|by a hook|call stack/, about)
          const faults = log.filter(({ msg }) =>
            String(msg).startsWith('plugin own failed in onSend: it called reply.send()')
          )
          t.ok(faults.length > 0 && faults.length < 5, `${about}: number of logged faults`)
        }
      }
    }
    t.equal((await ask('/whole', 'returns')).body, 'whole')
  })
}
