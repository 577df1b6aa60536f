// Own routes of plugins that differ in their constraints alone: each has its own preflights, and is shown by itself.
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { parse, raw } from '../helpers/gateway.ts'
import { folder, listen } from '../helpers/plugins.ts'

t.test('one path on two hosts given as regular expressions has separate preflights', async (t) => {
  const root = await folder(t, {
    'own.mjs': `export default async function own (fastify) {
      const config = { edge: { cors: { origin: 'https://app.example.com' } } }
      const add = (method, host) =>
        fastify.route({ method, url: '/x', constraints: { host }, config, handler: async () => method })
      add('POST', /^a\\./)
      add('PUT', /^b\\./)
      add('DELETE', /^b\\./)
    }`
  })
  const text = JSON.stringify({ listen: { port: 0 }, admin: false, plugins: [{ path: './own.mjs' }] })
  const { url, server } = await listen(t, parseConfig(text, join(root, 'gateway.yaml')))
  const port = Number(new URL(url).port)
  const ask = async (method: string, host: string) => {
    const lines = [
      `${method} /x HTTP/1.1`,
      `Host: ${host}`,
      'Connection: close',
      'Origin: https://app.example.com',
      'Access-Control-Request-Method: PUT'
    ]
    return parse(await raw(port, `${lines.join('\r\n')}\r\nContent-Length: 0\r\n\r\n`))
  }
  t.match(await ask('POST', 'a.example'), { status: 200 })
  t.match(await ask('PUT', 'b.example'), { status: 200 })
  const methodsOn = async (host: string) => {
    const { status, headers } = await ask('OPTIONS', host)
    return [status, headers['access-control-allow-methods']]
  }
  t.strictSame(await methodsOn('a.example'), [204, 'POST'])
  t.strictSame(await methodsOn('b.example'), [204, 'PUT, DELETE'])
  const shown = server.pluginRecord
    .ownRoutes()
    .map(({ methods, constraints }) => [`${constraints.host}`, [...methods].sort()])
  t.strictSame(shown, [
    ['/^a\\./', ['OPTIONS', 'POST']],
    ['/^b\\./', ['DELETE', 'OPTIONS', 'PUT']]
  ])
})
