import Fastify from 'fastify'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { serverOptions } from '../../../plugins/edge/protocol/listener.ts'
import { ask, gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

t.test('an id goes to the service and back; the client’s is kept if it is well formed', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await gatewayBefore(t, echo.url)
  const both = async (...headers: string[]) => {
    const { headers: back, body } = await get(gateway.port, '/', headers)
    const there = (JSON.parse(body) as { headers: Record<string, string> }).headers['x-request-id']
    t.equal(there, back['x-request-id'])
    return there
  }
  t.match(await both(), uuid)
  t.not(await both(), await both())
  for (const id of ['abc', 'a/b:c.d=e@f+g-h_i', 'x'.repeat(128)]) t.equal(await both(`X-REQUEST-ID: ${id}`), id)
  for (const id of ['', 'a b', '"a"', 'x'.repeat(129), '<script>', 'caf\xe9', 'a,b']) {
    t.match(await both(`x-request-id: ${id}`), uuid, id)
  }
  t.match(await both('x-request-id: a', 'x-request-id: b'), uuid, 'repeated ids are ignored')
})

t.test('another header, and untrusted clients', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await gatewayBefore(t, echo.url, { edge: { requestId: { header: 'X-Trace', trustClient: false } } })
  const { headers } = await ask(gateway.port, '/', ['X-Trace: mine', 'X-Request-Id: other'])
  t.match(headers['x-trace'], uuid)
  t.equal(headers['x-request-id'], 'other')
})

t.test('all lines of the log name it as access lines do', async (t) => {
  const lines: Record<string, unknown>[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) }
  const options = serverOptions(parseConfig('{}', 'gateway.yaml', {}))
  const server = Fastify({ ...options, logger: { stream }, genReqId: () => 'r1' })
  t.teardown(() => server.close())
  server.get('/', async (request) => request.log.info('served'))
  await server.inject('/')
  t.match(lines.at(-1), { msg: 'served', requestId: 'r1' })
})
