/** Responses over HTTP/2 cause no warning of Node, which would appear on stderr between log lines. */
import http2 from 'node:http2'
import t from 'tap'
import { startEcho, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

t.test('errors, replies and connection-specific fields cause no warning of Node', async (t) => {
  const warnings: string[] = []
  const warned = ({ name, message }: Error) => void warnings.push(`${name}: ${message}`)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  const echo = await startEcho()
  t.teardown(echo.close)
  const jwt = { secret: 'x'.repeat(32), algorithms: ['HS256'] }
  const { port, close } = await startGateway(
    {
      listen: { tls: selfSigned(t), http2: true },
      services: { any: { instances: [echo.url] } },
      routes: [
        { name: 'raw', match: { path: '/raw' }, service: 'any' },
        { name: 'guarded', match: { path: '/guarded' }, service: 'any', edge: { jwt } },
        { name: 'limited', match: { path: '/limited' }, service: 'any', edge: { bodyLimit: '1b' } }
      ]
    },
    {
      before: (server) => {
        server.register(async (own) => {
          own.get('/own', async (_request, reply) => reply.header('connection', 'close').send('own'))
          own.get('/upgrade', async (_request, reply) => reply.code(426).header('connection', 'close').send('upgrade'))
          own.get('/throws', async () => {
            throw new Error('on purpose')
          })
        })
      }
    }
  )
  t.teardown(close)
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const ask = async (path: string, body?: string) => {
    const stream = session.request({ ':path': path, ':method': body === undefined ? 'GET' : 'POST' })
    stream.end(body)
    let fields: http2.IncomingHttpHeaders = {}
    stream.on('response', (headers) => {
      fields = headers
    })
    stream.resume()
    await new Promise((resolve, reject) => stream.on('close', resolve).on('error', reject))
    t.notOk('connection' in fields, path)
    return (fields as http2.IncomingHttpStatusHeader)[':status']
  }
  t.equal(await ask('/raw'), 200)
  t.equal(await ask('/none'), 404)
  t.equal(await ask('/guarded'), 401)
  t.equal(await ask('/limited', 'long'), 413)
  t.equal(await ask('/a%00b'), 400)
  t.equal(await ask('/own'), 200)
  t.equal(await ask('/upgrade'), 426)
  t.equal(await ask('/throws'), 500)
  await new Promise(setImmediate)
  t.strictSame(warnings, [])
})
