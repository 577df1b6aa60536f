// slow: needs Redis
/** Public configurations of other gateways that need configuration alone: each is started and gets its requests. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import bcrypt from 'bcryptjs'
import type { Test } from 'tap'
import t from 'tap'
import { start } from '../../app.ts'
import { imported, importedGateways } from '../../config/import/index.ts'
import { parseConfig } from '../../plugins/config.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import { keys, secret } from '../helpers/edge/tokens.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, parse, raw, startWith } from '../helpers/gateway.ts'
import { shake } from '../helpers/listeners.ts'
import { EurekaServer, registration } from '../helpers/mesh/eureka-server.ts'
import { startRedis } from '../helpers/redis.ts'
import type { Ask, Translation } from './translations.ts'
import { documented, translations } from './translations.ts'

const urls = new Map<string, string>()

/**
 * Returns the URL of the echo service of that name. That of `auth` decides by the cookies of a request; that of `tokens` gives a
 * token to the client `gateway`.
 */
async function echo(name: string): Promise<string> {
  const known = urls.get(name)
  if (known !== undefined) return known
  const server = http.createServer(({ method, url, headers }, response) => {
    const [, kind, user] = /(session|login)=(\w+)/.exec(headers.cookie ?? '') ?? []
    if (name === 'auth' && user === undefined) response.statusCode = 403
    if (name === 'auth' && kind === 'login') response.writeHead(302, { location: 'https://login.example/' })
    if (name === 'auth' && kind === 'session') response.setHeader('x-user', user!)
    if (name === 'tokens') {
      const isClient = headers.authorization === `Basic ${Buffer.from('gateway:secret').toString('base64')}`
      response.statusCode = isClient ? 200 : 401
      response.setHeader('content-type', 'application/json')
      return response.end('{"access_token":"of-the-gateway","token_type":"Bearer","expires_in":600}')
    }
    if (!response.headersSent) response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ service: name, method, url, headers }))
  })
  server.on('upgrade', ({ url }, socket) => {
    socket.on('error', () => {})
    const fields = ['connection: upgrade', 'upgrade: websocket', `x-target: ${url}`]
    socket.end(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  urls.set(name, url)
  return url
}

const redis = await startRedis()
t.teardown(() => redis.stop())
const jwk = { ...keys.rsa.publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }
const jwks = http.createServer((_request, response) => response.end(JSON.stringify({ keys: [jwk] })))
jwks.listen(0, '127.0.0.1')
await once(jwks, 'listening')
t.teardown(() => jwks.close())
const eureka = await new EurekaServer().listen()
t.teardown(() => eureka.stop())
for (const name of ['orders', 'users']) eureka.register(registration(name, Number(new URL(await echo(name)).port)))
const issuer = authority(folderFor(t), 'issuer')
const { certFile, keyFile } = issuer.issue('video', { san: 'DNS:video.example' })
const school = join(t.testdir(), 'school.json')
const students = {
  get: {
    parameters: [{ name: 'year', in: 'query', schema: { type: 'integer' } }],
    responses: { 200: { description: 'Students.' } }
  }
}
writeFileSync(
  school,
  JSON.stringify({
    openapi: '3.1.0',
    info: { title: 'School', version: '1' },
    paths: { '/students': students, '/orders': students }
  })
)
const logs = folderFor(t)
writeFileSync(
  join(logs, 'audit.mjs'),
  "export default async (app) => app.addHook('onSend', async (_request, reply) => void reply.header('x-audit', '1'))"
)
/** Bodies of the requests to the receiver of metrics. */
const pushed: string[] = []
const receiver = http.createServer(async (request, response) => {
  pushed.push(`${request.url}\n${Buffer.concat(await request.toArray()).toString()}`)
  response.writeHead(204).end()
})
receiver.listen(0, '127.0.0.1')
await once(receiver, 'listening')
t.teardown(() => receiver.close())
const trusted = issuer.issue('secure', { san: 'IP:127.0.0.1' })
const secure = https.createServer({ cert: trusted.cert, key: trusted.key }, ({ method, url, headers }, response) => {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ service: 'secure', method, url, headers }))
})
secure.listen(0, '127.0.0.1')
await once(secure, 'listening')
t.teardown(() => secure.close())
const env = {
  LOGS: logs,
  INFLUX: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`,
  SECURE: `https://127.0.0.1:${(secure.address() as AddressInfo).port}`,
  CA: issuer.file,
  DNS_PORT: new URL(await echo('found')).port,
  OPENAPI: school,
  CERT: certFile,
  KEY: keyFile,
  REDIS: redis.url,
  EUREKA: eureka.url,
  JWKS: `http://127.0.0.1:${(jwks.address() as AddressInfo).port}/jwks`,
  JWT: secret
}

/** Replaces the names of services, keys and passwords. */
async function written(yaml: string): Promise<string> {
  for (const [, name] of yaml.matchAll(/http:\/\/([a-z]+)(?::8080)?(?=[/"},\]])/g)) await echo(name!)
  return yaml
    .replace(/http:\/\/([a-z]+)(?::8080)?(?=[/"},\]])/g, (_, name: string) => urls.get(name)!)
    .replace(/sha256\((.*?)\)/g, (_, key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`)
    .replace(/bcrypt\((.*?)\)/g, (_, password: string) => bcrypt.hashSync(password, 4))
}

interface Address {
  readonly port: number
  readonly isSecure: boolean
}

/** Starts a configuration; returns the addresses of its listeners by their names. */
async function started(t: Test, yaml: string): Promise<(name: string | undefined) => Address> {
  const listen = /^listen:/m.test(yaml) ? '' : 'listen: { host: 127.0.0.1, port: 0 }\n'
  const text = `${listen}admin: { port: 0 }\n${await written(yaml)}`
  const config = parseConfig(text, `${import.meta.dirname}/gateway.yaml`, env)
  if (config.listeners.length === 1 && !/redis:|eureka:/.test(yaml)) {
    const { port, close } = await startWith(config)
    t.teardown(close)
    return () => ({ port, isSecure: config.listen.tls !== undefined })
  }
  const runtime = await start(config)
  t.teardown(() => runtime.close())
  const admin = `http://127.0.0.1:${(runtime.admin!.address as AddressInfo).port}`
  await eventually(async () => (await fetch(`${admin}/health/ready`)).ok, 'the gateway to be ready')
  if (config.redis !== undefined) {
    const metrics = async () => (await fetch(`${admin}/metrics`)).text()
    await eventually(async () => (await metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
  }
  return (name) => {
    const { address } = runtime.listeners.find((each) => name === undefined || each.name === name)!
    const { tls } = config.listeners.find((each) => name === undefined || each.name === name)!
    return { port: (address as AddressInfo).port, isSecure: tls !== undefined }
  }
}

/** Sends a request over TLS, as `get` does without. */
async function getSecurely(port: number, path: string, headers: Readonly<Record<string, string>>, method: string) {
  const fields = Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':')))
  const { ':servername': servername = headers.host ?? '', ':ciphers': ciphers, ':version': version } = headers
  const versions = version && { minVersion: version as 'TLSv1.2', maxVersion: version as 'TLSv1.2' }
  const sent = https.request({
    host: '127.0.0.1',
    port,
    path,
    method,
    headers: fields,
    agent: false,
    servername,
    ca: issuer.cert,
    checkServerIdentity: () => undefined,
    ...(ciphers && { ciphers }),
    ...versions
  })
  sent.end()
  const response = await once(sent, 'response').then(
    ([response]) => response as http.IncomingMessage,
    () => null
  )
  if (response === null) return { status: 0, headers: {}, body: '' }
  const body = Buffer.concat(await response.toArray()).toString('latin1')
  return { status: response.statusCode!, headers: response.headers, body }
}

async function post(port: number, target: string, fields: readonly string[], content: string) {
  const length = `Content-Length: ${Buffer.byteLength(content)}`
  const lines = [
    `POST ${target} HTTP/1.1`,
    'Host: h',
    'Content-Type: application/json',
    length,
    ...fields,
    'Connection: close'
  ]
  return parse(await raw(port, `${lines.join('\r\n')}\r\n\r\n${content}`))
}

async function send([line, headers, , content]: Ask, addressOf: (name: string | undefined) => Address) {
  const [, method, listener, target] = /^(\S+) (?::(\w+))?(\/.*)$/.exec(line)!
  const { port, isSecure } = addressOf(listener)
  if (method === 'WS') {
    const response = await shake(port, headers, target)
    return { status: 101, url: response['x-target'], response }
  }
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  const {
    status,
    headers: response,
    body
  } = isSecure
    ? await getSecurely(port, target!, headers, method!)
    : await (content === undefined ? get(port, target!, fields, method) : post(port, target!, fields, content))
  const json = body.startsWith('{') ? (JSON.parse(body) as object) : {}
  return { status, response, body: json, ...('service' in json && json) }
}

const page = readFileSync(join(import.meta.dirname, '../../config/from-other-gateways.md'), 'utf8')
const examples = Object.entries(documented).map(([name, asks]) => {
  const [, yaml] = new RegExp(`^# complete, as the configuration of ${name} above\n(.*?)^\`\`\``, 'ms').exec(page)!
  return { name: `the example for ${name}`, yaml: yaml!, asks }
})

/** The other gateway's side of the examples, as `jingwei import` converts it. */
const imports = importedGateways.map((gateway) => {
  const [name, asks] = Object.entries(documented).find(([each]) => each.toLowerCase() === gateway)!
  const [, source] = new RegExp(`^## ${name}\n.*?^\`\`\`yml\n(.*?)^\`\`\``, 'ms').exec(page)!
  return { name: `the example for ${name}, imported`, yaml: imported(gateway, source!).yaml, asks }
})

const all: readonly Translation[] = [...translations, ...examples, ...imports]

for (const { name, yaml, asks, logged, pushed: line } of all) {
  t.test(name, async (t) => {
    const addressOf = await started(t, yaml)
    for (const ask of asks) {
      const [line, , expected] = ask
      if (typeof expected === 'number') t.equal((await send(ask, addressOf)).status, expected, line)
      else if (!Array.isArray(expected)) t.match(await send(ask, addressOf), expected, line)
      else {
        const found = []
        for (const each of expected) {
          const { status, service } = (await send(ask, addressOf)) as { status: number; service?: string }
          found.push(typeof each === 'number' ? status : service)
        }
        t.same(typeof expected[0] === 'number' ? found : found.sort(), expected, line)
      }
    }
    if (logged !== undefined) {
      const text = () => readFileSync(join(logs, logged.file), 'utf8').split('\n')
      const isLogged = (wanted: RegExp) => text().some((each) => wanted.test(each))
      for (const each of logged.lines) await eventually(() => isLogged(each), `a line ${each}`)
    }
    if (line !== undefined) await eventually(() => pushed.some((body) => line.test(body)), 'pushed metrics')
  })
}
