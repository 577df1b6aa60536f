// Bodies with several Content-Encoding fields over HTTP/2, of which Node shows the first: no concern reads them as plain ones.
import t from 'tap'
import { postFields } from '../../helpers/edge/http2-fields.ts'
import { gatewayBefore, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

t.test('rules for JSON bodies, and a server of forward auth', async (t) => {
  const asked: string[][] = []
  const auth = await startService(({ rawHeaders }, response) => {
    asked.push(rawHeaders.filter((_, index) => /^content-(?:type|encoding)$/i.test(rawHeaders[index - (index % 2)]!)))
    response.end()
  })
  t.teardown(auth.close)
  let calls = 0
  const service = await startService((request, response) => {
    calls++
    request.resume().on('end', () => response.end('served'))
  })
  t.teardown(service.close)
  const schema = { type: 'object', properties: { admin: false } }
  const route = (name: string, edge: object) => ({ name, match: { path: `/${name}` }, service: 's', edge })
  const { port } = await gatewayBefore(t, service.url, {
    listen: { tls: selfSigned(t), http2: true },
    services: { s: { instances: [service.url] } },
    routes: [
      route('validation', { validation: { body: { content: { 'application/json': schema } } } }),
      route('body', { body: { request: { remove: ['/admin'] } } }),
      route('auth', { forwardAuth: { url: auth.url, forwardBody: true } })
    ]
  })
  const fields = ['identity', 'deflate'].map((coding) => ['content-encoding', coding] as const)
  const post = (path: string) =>
    postFields(t, port, path, [['content-type', 'application/json'], ...fields], Buffer.from('{"a":1}'))
  t.match(await post('/validation'), 'JW_REQUEST_TYPE')
  t.match(await post('/body'), 'JW_BODY_CODING')
  t.equal(calls, 0)
  t.equal(await post('/auth'), 'served')
  const [types = []] = asked
  t.strictSame(types, [
    'content-type',
    'application/json',
    'content-encoding',
    'identity',
    'content-encoding',
    'deflate'
  ])
})
