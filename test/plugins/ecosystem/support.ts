/**
 * Runs a published plugin on two sides, on real sockets: the control, which is bare Fastify with @fastify/http-proxy, and
 * this gateway with the plugin in its YAML. Clients and services must see the same on both.
 */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingHttpHeaders, IncomingMessage, RequestListener } from 'node:http'
import http from 'node:http'
import http2 from 'node:http2'
import { createRequire } from 'node:module'
import { join, parse } from 'node:path'
import type { Readable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import { brotliDecompressSync, gunzipSync, inflateSync } from 'node:zlib'
import type { FastifyHttpProxyOptions } from '@fastify/http-proxy'
import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import { load } from 'js-yaml'
import type { Test } from 'tap'
import { build } from '../../../app.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { startService } from '../../helpers/gateway.ts'
import { ecosystemPackages } from '../../helpers/packages.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

export type Protocol = 'HTTP/1.1' | 'HTTP/2'

export interface RequestOptions {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  readonly body?: string | Buffer
}

export interface Received {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface Side {
  readonly name: 'control' | 'gateway'
  readonly url: string
  readonly server: FastifyInstance
  /** Requests that the service got. */
  readonly seen: () => readonly object[]
  /** Sends a request and returns the response, which is also kept for the comparison. */
  readonly ask: (path: string, options?: RequestOptions) => Promise<Received>
}

export interface Row {
  /**
   * The list under `plugins:`, as a user writes it. Those with `scope: routes` are for `/api` alone, not for `/open`.
   * `${FOLDER}` is the configuration's, `${UPSTREAM}` the service: its address for the control, `http://api.mesh` here.
   */
  readonly plugins: string
  /** Files beside the configuration: wrappers, pages. */
  readonly files?: Readonly<Record<string, string>>
  /** Responds under `/api`; without it, the response is text. */
  readonly service?: RequestListener
  /** Requests of a client. Returns what else must be the same on both sides. */
  readonly client: (side: Side) => Promise<unknown>
  /** Part of what both sides must show: `t.match` decides. */
  readonly expected: Partial<Seen>
  /** Values that differ in each run, such as random ids. */
  readonly masked?: RegExp
  /** More of the gateway's configuration. */
  readonly gateway?: object
}

/** Everything that clients and services saw. */
export interface Seen {
  readonly responses: readonly object[]
  readonly requests: readonly object[]
  readonly more: unknown
}

/** 1,935 bytes, so that compression and throttling have something to do. */
export const page = 'All work and no play makes Jack a dull boy.\n'.repeat(44).slice(1)

const plainPage: RequestListener = (_request, response) => {
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': page.length, 'x-service': 'plain' })
  response.end(page)
}

/** Tests that the plugin works on the control, and that clients and services see the same on the gateway. */
export function works(t: Test, name: string, row: Row, protocols: readonly Protocol[] = ['HTTP/1.1']): void {
  for (const protocol of protocols) {
    t.test(`${name} (${protocol})`, async (t) => {
      const control = await run(t, row, protocol, startControl)
      t.match(control, row.expected, 'the control shows what the plugin does')
      t.strictSame(await run(t, row, protocol, startGateway), control, 'the gateway shows the same')
    })
  }
}

interface Start {
  readonly row: Row
  readonly folder: string
  readonly origin: string
  readonly tls: { readonly cert: string; readonly key: string } | undefined
}

type Starter = (start: Start) => Promise<{ readonly name: Side['name']; readonly server: FastifyInstance }>

async function run(t: Test, row: Row, protocol: Protocol, starter: Starter): Promise<Seen> {
  const folder = await mkdtemp(join(await ecosystemPackages(), 'row-'))
  const requests: object[] = []
  const responses: object[] = []
  const service = await startService((request, response) => {
    void bytesOf(request).then((body) => {
      const { method, url, headers } = request
      requests.push({ method, url, headers: compared(headers), body: body.toString() })
      const listener = row.service ?? plainPage
      listener(request, response)
    })
  })
  let running: FastifyInstance | undefined
  try {
    for (const [name, text] of Object.entries(row.files ?? {})) await writeFile(join(folder, name), text)
    const tls = protocol === 'HTTP/2' ? selfSigned(t) : undefined
    const { name, server } = await starter({ row, folder, origin: service.url, tls })
    running = server
    const url = await server.listen({ host: '127.0.0.1', port: 0 })
    const send = protocol === 'HTTP/2' ? overHttp2 : overHttp1
    const ask: Side['ask'] = async (path, options = {}) => {
      const received = await send(url, path, options)
      responses.push(comparedResponse(received))
      return received
    }
    const more = await row.client({ name, url, server, seen: () => requests, ask })
    return masked({ responses, requests, more }, row.masked)
  } finally {
    await running?.close()
    await service.close()
    await rm(folder, { recursive: true, force: true })
  }
}

interface Entry {
  readonly path?: string
  readonly package?: string
  readonly options?: object
  readonly prefix?: string
  readonly scope?: 'all' | 'routes'
}

/** Registers the entries of `plugins:` by hand, as their own documentation says. */
const startControl: Starter = async ({ row, folder, origin, tls }) => {
  const https = tls && { cert: readFileSync(tls.cert), key: readFileSync(tls.key) }
  const server = Fastify({ ...(https && { http2: true, https }), forceCloseConnections: true } as object)
  const require = createRequire(join(folder, 'gateway.yaml'))
  const text = row.plugins.replaceAll(/\$\{FOLDER}/g, folder).replaceAll(/\$\{UPSTREAM}/g, origin)
  const entries = load(text) as Entry[]

  async function register(context: FastifyInstance, scope: Entry['scope']): Promise<void> {
    for (const { path, package: name, options, prefix, ...entry } of entries) {
      if ((entry.scope ?? 'all') !== scope) continue
      const file = path === undefined ? require.resolve(name!) : join(folder, path)
      const { default: plugin } = (await import(pathToFileURL(file).href)) as { default: FastifyPluginAsync }
      const isOwn = prefix !== undefined || Reflect.has(plugin, Symbol.for('skip-override'))
      await context.register(isOwn ? plugin : fp(plugin), { ...options, ...(prefix !== undefined && { prefix }) })
    }
  }

  async function proxy(context: FastifyInstance, prefix: string): Promise<void> {
    const { agent } = server as { agent?: FastifyHttpProxyOptions['undici'] }
    const undici = agent === undefined ? {} : { undici: agent }
    await context.register(httpProxy, { upstream: origin, prefix, rewritePrefix: prefix, ...undici })
  }

  await register(server, 'all')
  await server.register(async (context) => {
    await register(context, 'routes')
    await proxy(context, '/api')
  })
  await proxy(server, '/open')
  return { name: 'control', server }
}

const startGateway: Starter = async ({ row, folder, origin, tls }) => {
  const entries = load(row.plugins) as Entry[]
  const named = entries.filter(({ scope }) => scope === 'routes')
  const plugins = named.map(({ path, package: name }) => name ?? parse(path!).name)
  const text = JSON.stringify({
    listen: { host: '127.0.0.1', port: 0, drain: { delay: '0ms' }, ...(tls && { tls, http2: true }) },
    admin: { port: 0 },
    services: { api: { instances: [origin] } },
    routes: [
      { name: 'api', match: { path: '/api' }, service: 'api', plugins },
      { name: 'open', match: { path: '/open' }, service: 'api' }
    ],
    plugins: entries,
    ...row.gateway
  })
  const config = parseConfig(text, join(folder, 'gateway.yaml'), { FOLDER: folder, UPSTREAM: 'http://api.mesh' })
  return { name: 'gateway', server: build(config, { logger: false }) }
}

/**
 * Headers that say who forwarded, over which connection and when: they are the gateway's, not the plugin's. The gateway's
 * own tests hold them.
 */
const forwarding =
  /^(date|connection|keep-alive|transfer-encoding|via|x-request-id|x-forwarded-.*|forwarded|host|proxy-status)$/

function compared(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const kept = Object.entries(headers).filter(([name]) => !name.startsWith(':') && !forwarding.test(name))
  return Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1)))
}

/**
 * A response to compare: text, or JSON. Of an error, code and request id are the gateway's, and so is the message of a
 * 404 and, since it may say too much, of a 5xx that was not made to be a response: only some 503 are.
 */
function comparedResponse({ status, headers, body }: Received): object {
  const isJson = headers['content-type']?.includes('json') === true
  const value = isJson ? (JSON.parse(body) as Record<string, unknown>) : body
  if (status < 400 || typeof value !== 'object' || value === null || value.statusCode !== status) {
    return { status, headers: compared(headers), body: value }
  }
  const { 'content-length': _length, ...others } = compared(headers)
  const isOurs = status === 404 || (status >= 500 && status !== 503)
  return { status, headers: others, body: isOurs ? {} : { message: value.message } }
}

function masked(seen: Seen, pattern: RegExp | undefined): Seen {
  const text = JSON.stringify(seen)
  return JSON.parse(pattern === undefined ? text : text.replaceAll(pattern, '***')) as Seen
}

const limit = () => AbortSignal.timeout(10_000)

async function overHttp1(
  url: string,
  path: string,
  { method = 'GET', headers = {}, body }: RequestOptions
): Promise<Received> {
  const request = http.request(url + path, { method, headers, agent: false, signal: limit() })
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve).once('error', reject)
  })
  request.end(body)
  const { statusCode, headers: fields } = await response
  return decoded(statusCode!, fields, await bytesOf(await response))
}

async function overHttp2(
  url: string,
  path: string,
  { method = 'GET', headers = {}, body }: RequestOptions
): Promise<Received> {
  const session = http2.connect(url, { rejectUnauthorized: false })
  try {
    // Without a length, the control forwards no body.
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    const stream = session.request({ ':method': method, ':path': path, ...length, ...headers }, { signal: limit() })
    const response = new Promise<IncomingHttpHeaders & { ':status'?: number }>((resolve, reject) => {
      stream.once('response', resolve).once('error', reject)
      session.once('error', reject)
    })
    stream.end(body)
    const fields = await response
    return decoded(fields[':status']!, fields, await bytesOf(stream))
  } finally {
    session.destroy()
  }
}

async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const decoders: Record<string, (bytes: Buffer) => Buffer> = {
  br: brotliDecompressSync,
  deflate: inflateSync,
  gzip: gunzipSync
}

function decoded(status: number, headers: IncomingHttpHeaders, bytes: Buffer): Received {
  const decode = bytes.length === 0 ? undefined : decoders[headers['content-encoding'] ?? '']
  return { status, headers, body: (decode === undefined ? bytes : decode(bytes)).toString() }
}

/** An `authorization` header of the scheme Basic. */
export const basic = (name: string, password: string) =>
  `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`

/** The name and value of a cookie that a response sets, or undefined. */
export function cookieOf({ headers }: Received, name: string): string | undefined {
  const line = headers['set-cookie']?.find((value) => value.startsWith(`${name}=`))
  return line?.split(';')[0]
}
