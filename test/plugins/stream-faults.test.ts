// slow: takes about 17 s
// Streams of `onSend` hooks that fail, in a running gateway: their response fails, and nothing else does.
import t from 'tap'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { folder, gatewayProcess, service } from '../helpers/plugins.ts'
import { freePorts, waitFor } from '../helpers/processes.ts'

const bad = `
import { Readable, Transform, PassThrough } from 'node:stream'
const raise = () => { throw new Error('a fault of the stream') }
const through = (transform) => new Transform({ transform })
const ways = {
  'throws': (body) => body.pipe(through(raise)),
  'has an error': (body) => body.pipe(through((chunk, encoding, done) => done(new Error('a fault of the stream')))),
  'has an error without a listener': (body) =>
    body.pipe(through((chunk, encoding, done) => done(new Error('a fault of the stream')))).pipe(new PassThrough()),
  'throws in a timer': (body) => body.pipe(through(() => void setTimeout(raise, 5))),
  'throws in an immediate': (body) => body.pipe(through(() => void setImmediate(raise))),
  'rejects': (body) => body.pipe(through(async () => raise())),
  'is a generator that throws': (body) => Readable.from((async function * () { for await (const chunk of body) raise() })())
}
/** Lets the first chunk through, and does the rest a moment later. */
const later = (way) => (body) => {
  const first = new PassThrough()
  const rest = new PassThrough()
  let begun = false
  body.on('data', (chunk) => {
    if (!begun) first.write(chunk)
    else rest.write(chunk)
    begun = true
  })
  const out = new PassThrough()
  first.pipe(out, { end: false })
  way(rest).on('error', (error) => out.destroy(error)).pipe(out)
  return out
}
export default async function bad (fastify) {
  fastify.addHook('onSend', async ({ headers, exchange }, reply, payload) => {
    const way = ways[headers['x-way']]
    if (way === undefined || !(payload instanceof Readable) || reply.statusCode !== 200) return payload
    return headers['x-when'] === 'later' ? later(way)(payload) : way(payload)
  })
}
export { ways }`

const names = [
  'throws',
  'has an error',
  'has an error without a listener',
  'throws in a timer',
  'throws in an immediate',
  'rejects',
  'is a generator that throws'
]

// Each test has a gateway of its own, and mostly waits for time limits.
t.jobs = protocols.length

for (const protocol of protocols) {
  t.test(protocol, { timeout: 120_000 }, async (t) => {
    const origin = await service(t, (request, response) => {
      response.writeHead(200)
      if (request.headers['x-way'] === undefined) return void response.end('whole')
      const timer = setInterval(() => response.write('chunk'), 10)
      response.once('close', () => clearInterval(timer))
    })
    const [edge, admin] = (await freePorts(2)) as [number, number]
    const config = {
      listen: { host: '127.0.0.1', port: edge, drain: { delay: '0s', timeout: '10s' }, ...listenFor(t, protocol) },
      admin: { port: admin },
      mesh: { retry: false },
      services: { orders: { instances: [origin] } },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }],
      plugins: [{ path: './bad.mjs' }]
    }
    const root = await folder(t, { 'bad.mjs': bad, 'gateway.yaml': JSON.stringify(config) })
    const { running, lines } = await gatewayProcess(t, root)
    const { ask } = anyClient(t, protocol, edge)
    for (const name of names) {
      for (const when of ['at once', 'later']) {
        const before = lines().length
        const got = await ask('/', { headers: { 'x-way': name, 'x-when': when } }).catch(() => null)
        const what = `${name}, ${when}`
        const isError = got?.status === 500 && got.isWhole
        t.ok(isError || got === null || !got.isWhole, what)
        if (isError) t.match(JSON.parse(String(got.body)), { code: /JW_(PLUGIN_FAILED|INTERNAL)/ }, what)
        await waitFor(`the log of: ${what}`, () => {
          const news = lines().slice(before)
          return news.some(({ msg, error }) => msg === 'request' && /JW_(PLUGIN_FAILED|INTERNAL)/.test(String(error)))
        })
        const faults = lines()
          .slice(before)
          .filter(({ err }) => err !== undefined)
        t.match(JSON.stringify(faults), /a fault of the stream/, what)
        await waitFor(`no call is left after: ${what}`, async () => {
          const services = (await (await fetch(`http://127.0.0.1:${admin}/admin/services`)).json()) as {
            active: number
          }[]
          return services.every(({ active }) => active === 0)
        })
      }
    }
    t.equal(String((await ask('/')).body), 'whole')
    running.kill('SIGTERM')
    t.strictSame(await running.exited, { code: 0, signal: null })
  })
}
