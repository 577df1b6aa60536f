// slow: takes about 17 s
// Responses of plugins that HTTP cannot carry, in a running gateway: each fails alone, over every protocol.
import t from 'tap'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import type { Line } from '../helpers/plugins.ts'
import { folder, gatewayProcess, service } from '../helpers/plugins.ts'
import { freePorts, waitFor } from '../helpers/processes.ts'

const bad = `
import { PassThrough, Readable } from 'node:stream'

/** Faults that a hook or a handler makes in its reply, by name. */
const deeds = {
  'a reason phrase with a line break': (reply) => { reply.raw.statusMessage = 'a\\r\\nx: y' },
  'a reason phrase of other characters': (reply) => { reply.raw.statusMessage = '失败' },
  'status 0': (reply) => { reply.raw.statusCode = 0 },
  'status 1000': (reply) => { reply.raw.statusCode = 1000 },
  'status 101': (reply) => { reply.raw.statusCode = 101 },
  'status 100': (reply) => { reply.code(100) },
  'a field with other characters': (reply) => { reply.header('x-a', '失败') },
  'no number as length': (reply) => { reply.header('content-length', 'all') },
  'a trailer that throws': (reply) => { reply.trailer('x-t', () => { throw new Error('of the trailer') }) },
  'a trailer that rejects': (reply) => { reply.trailer('x-t', async () => { throw new Error('of the trailer') }) },
  'a trailer that throws in a timer': (reply) => { reply.trailer('x-t', () => void setTimeout(() => { throw new Error('of the trailer') }, 5)) },
  'a trailer that fails': (reply) => { reply.trailer('x-t', (reply, payload, done) => done(new Error('of the trailer'))) },
  'a trailer with a line break': (reply) => { reply.trailer('x-t', async () => 'a\\r\\nb: c') },
  'a trailer of other characters': (reply) => { reply.trailer('x-t', async () => '失败') },
  'a trailer without a value': (reply) => { reply.trailer('x-t', async () => {}) },
  'a trailer that never comes': (reply) => { reply.trailer('x-t', () => {}) },
  'a trailer whose name is none': (reply) => { reply.trailer('x t', async () => 'v') },
  'a shorter length': (reply) => { reply.header('content-length', 3) },
  'a longer length': (reply) => { reply.header('content-length', 30) }
}
const shapes = {
  string: () => 'hello',
  stream: () => Readable.from([Buffer.from('he'), Buffer.from('llo')]),
  web: () => new Response('hello').body
}
const early = (shape) => {
  const out = new PassThrough()
  out.write('hello')
  setTimeout(() => out.end(), 50)
  return out
}

export default async function bad (fastify) {
  fastify.addHook('onRequest', async ({ headers }, reply) => {
    if (headers['x-early'] === undefined) return
    deeds[headers['x-deed']](reply)
    return reply.send(shapes[headers['x-early']]())
  })
  fastify.addHook('onSend', async ({ headers }, reply, payload) => {
    const deed = deeds[headers['x-deed']]
    if (headers['x-hook'] === undefined || (reply.statusCode !== 200 && headers['x-again'] === undefined)) return payload
    if (headers['x-hook'] === 'consumed') {
      for await (const _ of payload);
      return payload
    }
    deed?.(reply)
    if (headers['x-hook'] === 'piped') return payload.pipe(new PassThrough())
    return shapes[headers['x-hook']]?.() ?? payload
  })
}
const notFound = (fastify) => fastify.setNotFoundHandler(async ({ headers }, reply) => {
  deeds[headers['x-deed']]?.(reply)
  return shapes.stream()
})
export const below = async (fastify) => notFound(fastify)
export const own = async (fastify) => {
  fastify.get('/own/:shape', async ({ headers, params }, reply) => {
    deeds[headers['x-deed']]?.(reply)
    return shapes[params.shape]()
  })
  notFound(fastify)
}
`

const heads = [
  'a reason phrase with a line break',
  'a reason phrase of other characters',
  'status 0',
  'status 1000',
  'status 101',
  'status 100',
  'a field with other characters'
]
/** HTTP/2 has no reason phrase, and its `statusCode` refuses others by itself. */
const overHttp2 = ['a field with other characters']

const trailers = [
  'a trailer that throws',
  'a trailer that rejects',
  'a trailer that throws in a timer',
  'a trailer that fails',
  'a trailer with a line break',
  'a trailer of other characters',
  'a trailer without a value',
  'a trailer that never comes'
]

// Each test has a gateway of its own, and mostly waits for time limits.
t.jobs = protocols.length

for (const protocol of protocols) {
  t.test(protocol, { timeout: 120_000 }, async (t) => {
    const origin = await service(t, (request, response) => {
      if (request.url === '/length') response.setHeader('content-length', 5)
      response.write('he')
      setTimeout(() => response.end('llo'), 5)
    })
    const [edge, admin] = (await freePorts(2)) as [number, number]
    const config = {
      listen: { host: '127.0.0.1', port: edge, drain: { delay: '0s', timeout: '10s' }, ...listenFor(t, protocol) },
      admin: { port: admin },
      mesh: { retry: false },
      services: { any: { instances: [origin] } },
      routes: [
        { name: 'any', match: { path: '/s' }, service: 'any', path: { strip: '/s' } },
        { name: 'hp', match: { path: '/hp' }, service: 'any', via: 'http-proxy', httpProxy: { rewritePrefix: '/' } }
      ],
      plugins: [
        { path: './bad.mjs', name: 'bad', hookTimeout: '500ms' },
        { path: './own.mjs', name: 'own', hookTimeout: '500ms' },
        { path: './below.mjs', name: 'below', prefix: '/below', hookTimeout: '500ms' }
      ]
    }
    const root = await folder(t, {
      'bad.mjs': bad,
      'below.mjs': `export { below as default } from './bad.mjs'`,
      'own.mjs': `export { own as default } from './bad.mjs'`,
      'gateway.yaml': JSON.stringify(config)
    })
    const { running, lines } = await gatewayProcess(t, root)
    const { ask } = anyClient(t, protocol, edge)

    /** Ways to the client on which a deed can be done. */
    const ways: readonly [name: string, path: string, headers: Record<string, string>][] = [
      ['the service’s body', '/s/chunks', { 'x-hook': 'same' }],
      ['the service’s body with a length', '/s/length', { 'x-hook': 'same' }],
      ['a stream around it', '/s/length', { 'x-hook': 'piped' }],
      ['a string in its place', '/s/length', { 'x-hook': 'string' }],
      ['http-proxy', '/hp/chunks', { 'x-hook': 'same' }],
      ['an own string', '/own/string', {}],
      ['an own stream', '/own/stream', {}],
      ['an own web stream', '/own/web', {}],
      ['a not-found handler', '/nowhere/stream', {}],
      ['a not-found handler below a prefix', '/below/stream', {}],
      ['an early string', '/s', { 'x-early': 'string' }],
      ['an early stream', '/s', { 'x-early': 'stream' }]
    ]

    /** Does a deed in several ways, and expects whole error responses or, where `canBreak`, some that are broken off. */
    async function fail(deed: string, some: typeof ways, canBreak: boolean): Promise<void> {
      const before = lines().length
      await Promise.all(
        some.map(async ([way, path, headers]) => {
          const got = await ask(path, { headers: { ...headers, 'x-deed': deed } }).catch(() => null)
          const isError = got?.status === 500 && got.isWhole
          t.ok(isError || (canBreak && !got?.isWhole), `${deed}, ${way}`)
          if (isError)
            t.match(JSON.parse(String(got.body)), { code: /JW_(PLUGIN_FAILED|BAD_HEADER)/ }, `${deed}, ${way}`)
        })
      )
      const news = () => lines().slice(before)
      const isFailure = ({ msg, error }: Line) =>
        msg === 'request' && /JW_(PLUGIN_FAILED|BAD_HEADER)/.test(String(error))
      await waitFor(`the log of: ${deed}`, () => news().filter(isFailure).length >= some.length)
      const named = new Map(news().map((line) => [line.requestId, line]))
      for (const line of news()) if (line.err !== undefined) named.set(line.requestId, line)
      for (const { route, requestId } of news().filter(isFailure)) {
        const fault = named.get(requestId)
        if (/field|no number/.test(deed)) t.match(fault, { err: { header: /^(x-a|content-length)$/ } }, deed)
        else
          t.match(fault, { msg: String(route).startsWith('/own') ? /plugin own\b/ : /plugin (bad|own|below)\b/ }, deed)
      }
    }

    for (const deed of protocol === 'HTTP/2' ? overHttp2 : heads) {
      await fail(deed, ways, false)
      await fail(deed, [['repeated in the error response', '/s/length', { 'x-hook': 'same', 'x-again': '1' }]], false)
    }
    for (const deed of trailers) await fail(deed, ways, true)
    await fail('a trailer whose name is none', ways, false)
    const streams = ways.filter(([name]) => !name.includes('string'))
    await fail('a shorter length', streams, true)
    await fail('a longer length', streams, true)
    await fail('no number as length', streams, false)
    await fail('a body that was read', [['', '/s/length', { 'x-hook': 'consumed' }]], true)

    t.equal(String((await ask('/s/length')).body), 'hello')
    t.equal(lines().filter(({ level }) => level === 'fatal').length, 0)
    running.kill('SIGTERM')
    t.strictSame(await running.exited, { code: 0, signal: null })
  })
}
