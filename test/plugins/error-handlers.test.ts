// Error handlers of plugins: they render errors, and what the error table says of the gateway and its services stays.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import type { Protocol } from '../edge/helpers/asking-client.ts'
import { anyClient, listenFor, protocols } from '../edge/helpers/asking-client.ts'
import { eventually, startWith } from '../helpers/gateway.ts'
import { folder, service } from './support.ts'

const plugin = `
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
  'rejects with another': async () => { throw new Error('a fault of the handler') }
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
    mesh: { retry: false, attemptTimeout: '300ms' },
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
  const ask = async (path: string, handler: string) => {
    gateway.log.length = 0
    const { status, headers, body, isWhole } = await client.ask(path, { headers: { 'x-handler': handler } })
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
        t.strictSame(JSON.parse(got.body), { own: message, code, status }, 'without details')
      }
      for (const handler of ['passes on', 'rethrows', 'rejects', 'throws', 'rejects with another']) {
        const got = await ask(path, handler)
        t.match(got, { status, proxyStatus, line: { status, error: code } }, `${path}, ${handler}`)
        t.match(JSON.parse(got.body), { code, message, statusCode: status }, 'the gateway’s own')
        const faults = log.filter(({ level }) => level === 50)
        t.equal(faults.length > 0, ['throws', 'rejects with another'].includes(handler), `${handler}: in the log`)
        if (faults.length > 0) t.match(faults[0], { plugin: 'own', msg: /a fault of the handler/ })
      }
      if (path === '/dead') t.equal((await ask(path, 'rethrows')).line.cause, 'ECONNREFUSED')
    }

    for (const path of ['/whole/stock', '/whole/late', '/own/stock']) {
      const stock = await ask(path, 'renders')
      t.match(stock, { status: 418, line: { status: 418, error: 'JW_PLUGIN_FAILED' } }, path)
      t.match(JSON.parse(stock.body), { own: 'none left', item: 'tea' }, `${path}: the plugin's own error`)
      t.equal(stock.headers['x-whole'], undefined, 'nothing of the service’s response')
      t.equal((await ask(path, 'leaves the status')).status, 500, path)
      const passed = await ask(path, 'passes on')
      t.match(JSON.parse(passed.body), { code: 'JW_PLUGIN_FAILED', message: 'A plugin of the gateway failed' }, path)
    }
    for (const handler of ['returns', 'leaves the status']) {
      t.match(await ask('/whole/pay', handler), { status: 402, body: /first pay/, line: { error: 'PAY' } })
      t.match(await ask('/whole/busy', handler), { status: 503, body: /busy/ })
    }
    t.match(await ask('/whole/busy', 'passes on'), { status: 503, body: /busy/ })
    t.notOk(
      log.some(({ level }) => level === 50),
      'a refusal is no error of the log'
    )

    const called = await ask('/own/call', 'returns')
    const proxyStatus = 'jingwei; error=connection_refused'
    t.match(called, { status: 502, proxyStatus, line: { error: 'JW_UPSTREAM_REFUSED' } }, 'an own route')
    t.equal((await ask('/own/call', 'renders')).status, 418, 'its status is the handler’s')
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
      'no second handler, to Fastify'
    )
  })
}

t.test('with a prefix, it is for the plugin’s own routes', async (t) => {
  const { ask } = await started(t, 'HTTP/1.1', { prefix: '/bff' })
  t.match(JSON.parse((await ask('/dead', 'renders')).body), { code: 'JW_UPSTREAM_REFUSED', statusCode: 502 })
  t.match(await ask('/bff/own/call', 'returns'), { status: 502, body: /"own":"The service refused/ })
})
