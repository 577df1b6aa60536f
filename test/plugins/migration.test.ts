/** The example of a hand-made gateway, before and after it moved: the same requests get the same responses, and then more. */
import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadWithoutPlugins } from '../../plugins/config.ts'
import { listen, service } from '../helpers/plugins.ts'
import { freePort, start } from '../helpers/processes.ts'

const examples = join(import.meta.dirname, '../../config/examples')

/** Responds with the part of a request that a service goes by. */
const echo =
  (name: string): RequestListener =>
  (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { method, url, headers } = request
      const { 'x-team': team, 'x-report-of': of, 'content-type': type } = headers
      response.setHeader('x-powered-by', 'a framework').setHeader('x-service', name)
      response.setHeader('set-cookie', ['a=1', 'b=2']).setHeader('content-type', 'application/json')
      response.statusCode = url?.includes('missing') ? 404 : 200
      response.end(JSON.stringify({ name, method, url, team, of, type, body: Buffer.concat(chunks).toString() }))
    })
  }

async function before(t: Test, urls: { ORDERS_URL: string; USERS_URL: string }): Promise<string> {
  const port = await freePort()
  const gateway = await start({
    command: process.execPath,
    args: [join(examples, 'hand-made-gateway.ts')],
    env: { ...process.env, ...urls, PORT: String(port) },
    ready: /Server listening/
  })
  t.teardown(gateway.stop)
  return `http://127.0.0.1:${port}`
}

async function after(t: Test, urls: Record<string, string>): Promise<string> {
  const env = { PORT: '0', ADMIN_PORT: '0', ORDERS_URL_2: urls.ORDERS_URL!, ...urls }
  return (await listen(t, loadWithoutPlugins(join(examples, 'migrated-gateway.yaml'), env))).url
}

const requests: readonly (readonly [path: string, init?: RequestInit])[] = [
  ['/orders/7?a=b%20c&d'],
  ['/orders'],
  ['/orders/missing'],
  ['/orders/7', { method: 'HEAD' }],
  ['/orders', { method: 'POST', body: '{ "a": 1 }', headers: { 'content-type': 'application/json' } }],
  ['/orders', { method: 'PUT', body: 'a=1', headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
  ['/orders/7', { method: 'DELETE' }],
  ['/users/7'],
  ['/users/7', { headers: { 'x-api-key': 'demo' } }],
  ['/users/a%20b/orders?x=1', { headers: { 'x-api-key': 'demo' } }],
  ['/reports/2026', { headers: { 'x-team': 'sales' } }],
  ['/ping']
]

t.test('the gateway responds like the hand-made one', async (t) => {
  const urls = { ORDERS_URL: await service(t, echo('orders')), USERS_URL: await service(t, echo('users')) }
  const [old, moved] = [await before(t, urls), await after(t, urls)]
  for (const [path, init = {}] of requests) {
    const ask = async (gateway: string) => {
      const response = await fetch(gateway + path, init)
      const { 'x-service': name, 'content-type': type, 'x-powered-by': by } = Object.fromEntries(response.headers)
      return {
        status: response.status,
        name,
        type,
        by,
        cookies: response.headers.getSetCookie(),
        body: await response.text()
      }
    }
    const [expected, found] = [await ask(old), await ask(moved)]
    t.strictSame(found, expected, `${init.method ?? 'GET'} ${path}: ${found.status}`)
  }
})

t.test('the registrations of both files differ only in their upstream', async (t) => {
  const registrations = (file: string) => {
    const text = readFileSync(join(examples, file), 'utf8')
    return text.slice(text.indexOf('  await fastify.register'), text.indexOf("  fastify.get('/ping'"))
  }
  t.equal(
    registrations('hand-made-gateway.ts')
      .replaceAll('upstream: ORDERS_URL', "upstream: 'http://orders.mesh'")
      .replaceAll('upstream: USERS_URL', "upstream: 'http://users.mesh'"),
    registrations('migrated-gateway.ts')
  )
})

t.test('a failing service: 500 before, 502 with a code after, and no failure with a second instance', async (t) => {
  const resets = await service(t, (request) => void request.socket.destroy())
  const USERS_URL = await service(t, echo('users'))
  const broken = { ORDERS_URL: resets, USERS_URL }
  t.equal((await fetch(`${await before(t, broken)}/orders/7`)).status, 500)
  const alone = await fetch(`${await after(t, broken)}/orders/7`)
  t.match({ status: alone.status, body: await alone.json() }, { status: 502, body: { code: 'JW_UPSTREAM_RESET' } })

  const closed = `http://127.0.0.1:${await freePort()}`
  const spare = await service(t, echo('spare'))
  const moved = await after(t, { ORDERS_URL: closed, ORDERS_URL_2: spare, USERS_URL })
  for (let round = 0; round < 6; round++) {
    const response = await fetch(`${moved}/orders/7`)
    t.match({ status: response.status, body: await response.json() }, { status: 200, body: { name: 'spare' } })
  }
})
