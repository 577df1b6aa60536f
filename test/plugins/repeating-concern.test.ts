/** A mesh concern of a user's that sends requests again: the gateway keeps their bodies, as for the bundled ones. */
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig } from '../../plugins/config.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { startWith } from '../helpers/gateway.ts'
import { folder, service, startFault } from '../helpers/plugins.ts'

const mesh = join(import.meta.dirname, '../../plugins/mesh')

/** Sends a POST once more, at another instance, if the first one responds with 503. */
const again = `
import { DiscardingHandler } from '${mesh}/core/handlers/discarding-handler.ts'
import { isReplayable } from '${mesh}/core/repeating/replay-body.ts'

class Again extends DiscardingHandler {
  constructor(next, opts, dispatch) {
    super(next)
    Object.assign(this, { opts, dispatch })
  }
  onResponseStart(controller, status, headers, text) {
    const { opts, dispatch, next } = this
    if (status !== 503 || !isReplayable(opts.body, false)) return next.onResponseStart(controller, status, headers, text)
    this.discard(controller)
    opts.call.tried = new Set([opts.call.selected.endpoint])
    dispatch(opts, next)
  }
}

export default {
  name: 'again',
  options: {
    type: 'object',
    additionalProperties: false,
    properties: { methods: { type: 'array', items: { type: 'string' } }, maxBody: { type: 'string', unit: 'size', default: '1mb' } }
  },
  layer: (service, { again }) => again
    ? (dispatch) => (opts, handler) => dispatch(opts, new Again(handler, opts, dispatch))
    : null,
  repeats: ({ again }) => again
    ? { maxBody: again.maxBody, mayRepeat: ({ method }) => again.methods.includes(method) }
    : null
}
`

const yamlOf = (origins: readonly string[], listen: object) => `
admin: false
listen: ${JSON.stringify(listen)}
mesh: { retry: { maxBody: 1kb } }
services:
  orders:
    instances: ${JSON.stringify(origins)}
routes:
  - { name: again, service: orders, match: { path: /again }, mesh: { again: { methods: [POST] } } }
  - { name: small, service: orders, match: { path: /small }, mesh: { again: { methods: [POST], maxBody: 1kb } } }
  - { name: never, service: orders, match: { path: /never } }
plugins: [{ path: ./again.ts }]
`

/** Writes a configuration and its module into a folder of their own, as Node imports a module once. */
async function fileOf(t: Test, module: string, origins: readonly string[], listen = {}): Promise<string> {
  const root = await folder(t, { 'again.ts': module, 'gateway.yaml': yamlOf(origins, listen) })
  return join(root, 'gateway.yaml')
}

/** Returns the message of the fault that stops the start; empty if it starts. */
async function faultOf(t: Test, module: string): Promise<string> {
  const file = await fileOf(t, module, ['http://127.0.0.1:1'])
  return startFault(t, file)
}

const big = 'x'.repeat(200_000)

for (const protocol of protocols) {
  t.test(`${protocol}: the concern repeats a POST with its whole body at another instance`, async (t) => {
    const calls: { index: number; body: string }[] = []
    let failing = 0
    const serve = (index: number) =>
      service(t, async (request, response) => {
        calls.push({ index, body: await text(request) })
        response.writeHead(failing-- > 0 ? 503 : 200).end(`from ${index}`)
      })
    const file = await fileOf(t, again, [await serve(0), await serve(1)], listenFor(t, protocol))
    const gateway = await startWith(await loadConfig(file, {}))
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const post = async (path: string, body: string, method = 'POST') => {
      calls.length = 0
      failing = 1
      const response = await ask(path, { method, body })
      return [response.status, calls.map((call) => call.body === body), new Set(calls.map(({ index }) => index)).size]
    }
    for (const body of ['a body', big]) {
      t.strictSame(await post('/again', body), [200, [true, true], 2], `${body.length} bytes`)
    }
    t.strictSame(await post('/small', big), [503, [true], 1], 'a body that is too large to keep is sent once')
    t.strictSame(await post('/small', 'a body'), [200, [true, true], 2])
    t.strictSame(
      await post('/again', 'a body', 'PATCH'),
      [503, [true], 1],
      'a method that may not be repeated is sent once'
    )
    t.strictSame(await post('/never', 'a body'), [503, [true], 1], 'a route without the concern sends it once')
    const chain = gateway.server.mesh.describe('orders', { again: { methods: [], maxBody: 1 } } as object)
    t.match(chain.join(' '), /replay again retry/)
  })
}

t.test('the concern must be placed after replay, which keeps bodies', async (t) => {
  t.equal(await faultOf(t, again), '')
  t.equal(await faultOf(t, again.replace('layer:', "order: { after: 'hedge' },\n  layer:")), '')
  const wrong = await faultOf(t, again.replace('layer:', "order: { before: 'replay' },\n  layer:"))
  t.match(wrong, /gateway\.yaml:\d+:\d+: plugins\[0\]: .*order: again sends requests again.* after replay/)
})

t.test('a faulty `repeats` export is reported', async (t) => {
  t.match(
    await faultOf(t, again.replace(/repeats: [\s\S]*/, 'repeats: true\n}')),
    /gateway\.yaml:\d+:\d+: plugins\[0\]: "repeats" of its concern again is not a function/
  )
  const ofEdge = again.replace(/layer: [\s\S]*?repeats:/, 'plugin: async () => () => null,\n  repeats:')
  t.match(await faultOf(t, ofEdge), /plugins\[0\]: its concern again has "repeats", which is for mesh concerns/)
})

t.test('a `repeats` function that fails ends its own call, and the log names the plugin', async (t) => {
  const kept = '{ maxBody: again.maxBody, mayRepeat: ({ method }) => again.methods.includes(method) }'
  const faults: Record<string, [returned: string, logged: RegExp]> = {
    'a function that throws': ['again.nothing.at(0)', /again failed in repeats: Cannot read/],
    'no size': ['{ mayRepeat: () => true }', /again failed in repeats: expected null or/],
    'no function': ['{ maxBody: null }', /again failed in repeats: expected null or/],
    'a check that throws': ['{ maxBody: null, mayRepeat: () => again.nothing.at(0) }', /in repeats\.mayRepeat: Cannot/],
    'a check that is late': [
      '{ maxBody: null, mayRepeat: async () => true }',
      /repeats\.mayRepeat: expected true or false/
    ]
  }
  const isOn = 'layer: (service, { again }) => again\n'
  const throws = 'layer: (service, { again }) => again?.nothing.at(0)\n'
  const modules = [
    ...Object.entries(faults).map(
      ([what, [returned, logged]]) => [what, again.replace(kept, returned), logged] as const
    ),
    ['a layer that throws', again.replace(isOn, throws), /again failed in layer: Cannot read/] as const
  ]
  for (const [what, module, logged] of modules) {
    const origin = await service(t, (request, response) => void request.resume().on('end', () => response.end('whole')))
    const file = await fileOf(t, module, [origin])
    const gateway = await startWith(await loadConfig(file, {}), { log: true })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
    const failed = await ask('/again', { method: 'POST', body: 'a body' })
    t.strictSame([failed.status, JSON.parse(String(failed.body)).code], [500, 'JW_PLUGIN_FAILED'], what)
    const line = gateway.log.find(({ level }) => level === 50)
    t.match(line, { plugin: 'again', interceptor: 'again', msg: logged }, what)
    const isLayer = module.includes(throws)
    const chain = gateway.server.mesh.describe('orders', { again: { methods: [], maxBody: 1 } } as object)
    t.ok(chain.includes(isLayer ? 'again (failed)' : 'again'), `${what}: name in the chain`)
    const other = await ask('/never', { method: 'POST', body: 'a body' })
    t.strictSame([other.status, String(other.body)], [200, 'whole'], `${what}: another route is served`)
  }
})
