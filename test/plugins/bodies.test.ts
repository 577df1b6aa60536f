// slow: installs packages
// Bodies: those of a plugin's own routes are parsed as in any Fastify, those of proxied routes go on as streams.
import http from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { eventually } from '../helpers/eventually.ts'
import { ecosystemPackages } from '../helpers/packages.ts'
import type { Gateway } from '../helpers/plugins.ts'
import { folder, listen, service } from '../helpers/plugins.ts'

const own = `export default async function own (fastify) {
  fastify.post('/own', async ({ body }) => ({ body }))
  fastify.post('/upload', async (request) => {
    const file = await request.file()
    return { name: file.filename, text: (await file.toBuffer()).toString() }
  })
}`

async function gatewayOf(t: Test, origin: string): Promise<Gateway> {
  const node_modules = join(await ecosystemPackages(), 'node_modules')
  const root = await folder(t, { 'own.mjs': own })
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    services: { orders: { instances: [origin] } },
    routes: [{ name: 'orders', match: { path: '/api' }, service: 'orders' }],
    plugins: [
      { path: join(node_modules, '@fastify/formbody/index.js') },
      { path: join(node_modules, '@fastify/multipart/index.js') },
      { path: './own.mjs' }
    ]
  })
  return listen(t, parseConfig(text, join(root, 'gateway.yaml')))
}

const post = (url: string, body: string | FormData | URLSearchParams, type?: string) =>
  fetch(url, { method: 'POST', body, ...(type !== undefined && { headers: { 'content-type': type } }) })

t.test('own routes: Fastify parses JSON and text, plugins parse forms and files', async (t) => {
  const { url } = await gatewayOf(t, 'http://127.0.0.1:9')
  t.same(await (await post(`${url}/own`, '{"a":1}', 'application/json')).json(), { body: { a: 1 } })
  t.same(await (await post(`${url}/own`, 'hello', 'text/plain')).json(), { body: 'hello' })
  t.same(await (await post(`${url}/own`, new URLSearchParams({ a: '1' }))).json(), { body: { a: '1' } })
  const form = new FormData()
  form.set('file', new File(['some text'], 'a.txt'))
  t.same(await (await post(`${url}/upload`, form)).json(), { name: 'a.txt', text: 'some text' })

  const broken = await post(`${url}/own`, '{', 'application/json')
  t.equal(broken.status, 400)
  t.match(await broken.json(), { code: 'FST_ERR_CTP_INVALID_JSON_BODY' })
  const unknown = await post(`${url}/own`, 'x', 'application/unknown')
  t.equal(unknown.status, 415)
  await unknown.text()
})

t.test('proxied routes: the same bodies reach the service byte for byte, and so do broken ones', async (t) => {
  const origin = await service(t, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => response.end(`${request.headers['content-type']} ${Buffer.concat(chunks).toString('hex')}`))
  })
  const { url } = await gatewayOf(t, origin)
  const multipart = '--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n--b--\r\n'
  const bodies: [type: string, body: string][] = [
    ['application/json', '{"a": 1 }'],
    ['application/json', '{"__proto__": 1'],
    ['text/plain', 'hello'],
    ['application/x-www-form-urlencoded', 'a=1&b=%zz'],
    ['multipart/form-data; boundary=b', multipart],
    ['no media type', 'x']
  ]
  for (const [type, body] of bodies) {
    const response = await post(`${url}/api`, body, type)
    t.equal(await response.text(), `${type} ${Buffer.from(body).toString('hex')}`)
  }
})

t.test('a proxied form is streamed before it is complete', async (t) => {
  const seen: string[] = []
  const origin = await service(t, (request, response) => {
    request.on('data', (chunk: Buffer) => seen.push(chunk.toString())).on('end', () => response.end())
  })
  const { url } = await gatewayOf(t, origin)
  const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': 7 }
  const client = http.request(`${url}/api`, { method: 'POST', headers })
  client.on('error', () => {})
  client.write('a=1')
  await eventually(() => seen.join('') === 'a=1')
  const responded = new Promise<void>((resolve) =>
    client.once('response', (response) => response.resume().on('end', resolve))
  )
  client.end('&b=2')
  await responded
  t.equal(seen.join(''), 'a=1&b=2')
})

t.test('the body of a request without a route is not parsed: 404 for every media type', async (t) => {
  const { url } = await gatewayOf(t, 'http://127.0.0.1:9')
  for (const type of ['application/json', 'application/unknown', 'no media type']) {
    const response = await post(`${url}/nothing`, '{', type)
    t.equal(response.status, 404)
    t.match(await response.json(), { code: 'JW_NO_ROUTE' })
  }
})
