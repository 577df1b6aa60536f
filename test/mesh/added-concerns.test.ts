/** Concerns that users add to the mesh: a layer is called once for each chain, and its faults fail its own calls. */
import type { Test } from 'tap'
import t from 'tap'
import { ForwardingHandler } from '../../plugins/mesh/core/handlers/forwarding-handler.ts'
import type { DispatchHandler, DispatchOptions, Interceptor, Logger } from '../../plugins/mesh/core/types.ts'
import { meshOf, Recorder, service } from '../helpers/mesh/mesh.ts'
import { resetting, silent, upstream } from '../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const pass: Interceptor = (dispatch) => dispatch
const get = { origin, path: '/', method: 'GET' } as const

function logStub() {
  const lines: { fields: object; message: string }[] = []
  const log: Logger = { info() {}, warn() {}, error: (fields, message) => void lines.push({ fields, message }) }
  return { lines, log }
}

/** Returns the code of the error that ends a call, be it thrown or reported; null if it ends well. */
async function codeOf(mesh: ReturnType<typeof meshOf>, opts: Partial<DispatchOptions> = {}): Promise<unknown> {
  const recorder = new Recorder()
  try {
    mesh.dispatch({ ...get, ...opts } as DispatchOptions, recorder)
  } catch (error) {
    return Reflect.get(error as Error, 'code')
  }
  await recorder.done
  return recorder.error === null ? null : recorder.error.code
}

async function meshWith(t: Test, log?: Logger) {
  const { url } = await upstream(t, 'orders')
  return meshOf(t, [service('orders', [url]), service('other', [url])], log && { log })
}

t.test('a layer is called once for each chain, for any number of explanations and calls', async (t) => {
  const mesh = await meshWith(t)
  const built: string[] = []
  mesh.add({
    name: 'cache',
    layer: ({ name }, { retry, subset }) => {
      built.push(`${name} ${retry} ${subset}`)
      return pass
    }
  })
  const split = [
    { service: 'orders', weight: 1, subset: 'a' },
    { service: 'other', weight: 1, subset: 'b' }
  ]
  const policies = [{}, { retry: false }, { split }] as const
  for (let look = 0; look < 3; look++) {
    for (const policy of policies) {
      t.ok(mesh.describe('orders', policy).includes('cache'))
      const explained = mesh.explain('orders', policy, get)
      t.ok(explained.every(({ chain }) => chain.includes('cache')))
    }
    t.equal(await codeOf(mesh), null)
    t.equal(await codeOf(mesh, { mesh: policies[1] }), null)
    await codeOf(mesh, { mesh: policies[2] })
  }
  t.strictSame(built, ['orders false undefined', 'orders false undefined', 'orders false a', 'other false b'])
})

t.test('the chain of each share of a split is explained', async (t) => {
  const mesh = await meshWith(t)
  mesh.add({ name: 'partial', layer: ({ name }) => (name === 'other' ? pass : null) })
  const split = ['orders', 'other'].map((service) => ({ service, weight: 1 }))
  const chains = mesh.explain('orders', { split }, get).map(({ chain }) => chain.includes('partial'))
  t.strictSame(chains, [false, true])
})

t.test('a layer that throws is logged once, and fails only the calls of its chain', async (t) => {
  const { lines, log } = logStub()
  const mesh = await meshWith(t, log)
  let built = 0
  mesh.add({
    name: 'bad',
    layer: (_service, { subset }) => {
      if (subset !== 'bad') return pass
      built++
      throw new Error('bad policy')
    }
  })
  const bad = { subset: 'bad' }
  for (let look = 0; look < 3; look++) {
    const chain = mesh.describe('orders', bad)
    t.ok(chain.includes('bad (failed)'))
    t.ok(chain.includes('select'), 'the others are shown, too')
    t.equal(await codeOf(mesh, { mesh: bad }), 'JW_PLUGIN_FAILED')
    t.equal(await codeOf(mesh), null, 'calls of another chain succeed')
  }
  t.equal(built, 1)
  t.equal(lines.length, 1)
  t.match(lines[0], { fields: { interceptor: 'bad', service: 'orders' }, message: /bad failed in layer: bad policy/ })
})

t.test('an exception of a concern’s interceptor fails its own call, and names the concern', async (t) => {
  class ThrowingAtStart extends ForwardingHandler {
    override onResponseStart(): void {
      throw new Error('a fault in onResponseStart')
    }
  }
  class ThrowingAtError extends ForwardingHandler {
    override onResponseError(): void {
      throw new Error('a fault in onResponseError')
    }
  }
  const wrap = (make: (handler: DispatchHandler) => DispatchHandler): Interceptor => {
    return (dispatch) => (opts, handler) => dispatch(opts, opts.path === '/' ? handler : make(handler))
  }
  const atStart = wrap((handler) => new ThrowingAtStart(handler))
  const atError = wrap((handler) => new ThrowingAtError(handler))
  const atOnce = wrap(() => {
    throw new Error('a fault at once')
  })
  const good = (await upstream(t, 'orders')).url
  for (const [what, interceptor, url, where] of [
    ['at once', atOnce, good, /bad failed in dispatch: a fault at once/],
    ['with a response', atStart, good, /bad failed in onResponseStart: a fault/],
    ['with the error of a socket', atError, (await resetting(t)).url, /bad failed in onResponseError: a fault/],
    ['with the error of a timer', atError, (await silent(t)).url, /bad failed in onResponseError: a fault/]
  ] as const) {
    for (const order of [{ before: 'replay' }, { after: 'select' }]) {
      const { lines, log } = logStub()
      const mesh = meshOf(t, [service('orders', [url], { attemptTimeout: 150 })], { log })
      mesh.add({ name: 'bad', layer: () => interceptor }, order)
      t.equal(await codeOf(mesh, { path: '/bad' }), 'JW_PLUGIN_FAILED', what)
      t.equal(lines.length, 1, 'the failure is logged once')
      t.match(lines[0], { fields: { interceptor: 'bad', service: 'orders' }, message: where })
      if (url === good) t.equal(await codeOf(mesh), null, 'another call succeeds')
    }
  }
})

t.test('add() after the first request is an error', async (t) => {
  const mesh = await meshWith(t)
  mesh.add({ name: 'early', layer: () => pass })
  t.equal(await codeOf(mesh), null)
  const before = mesh.describe('orders')
  t.ok(before.includes('early'))
  t.throws(() => mesh.add({ name: 'late', layer: () => pass }), /add concern late before the first request/)
  t.strictSame(mesh.describe('orders'), before)
})
