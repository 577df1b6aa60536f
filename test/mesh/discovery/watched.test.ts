/** The part that sources have in common: retries, limits, the last known instances, and one line in the log. */
import { getEventListeners } from 'node:events'
import t from 'tap'
import type { InstanceSpec } from '../../../plugins/mesh/core/types.ts'
import type { Watching } from '../../../plugins/mesh/discovery/watched.ts'
import { WatchedSource } from '../../../plugins/mesh/discovery/watched.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording, watch } from '../../helpers/mesh/sources.ts'

const spec = (port: number): InstanceSpec => {
  const origin = `http://127.0.0.1:${port}`
  return { id: origin, origin, weight: 1, tags: [], meta: {} }
}
const [one, two] = [spec(1), spec(2)]

function setUp(run: (watching: Watching, runs: number) => Promise<void>, more = {}, timing = {}) {
  const { surroundings, lines, counts } = recording()
  let updates = 0
  let errors = 0
  const counters = { begin() {}, error: () => void errors++, update: () => void updates++, reset() {} }
  let runs = 0
  const options = {
    kind: 'test',
    service: 'orders',
    watch: (watching: Watching) => run(watching, ++runs),
    everyMs: 1,
    timeoutMs: 10_000,
    emptyGraceMs: 0,
    label: 'Test',
    ...more
  }
  const source = new WatchedSource(
    options,
    { deps: surroundings, counters },
    { burst: 1000, interval: 1, backoff: 1, ...timing }
  )
  return { source, lines, counts, of: () => ({ runs, updates, errors }) }
}

const forever = () => new Promise<void>(() => {})

t.test('the function runs again, and only changes are published', async (t) => {
  const { source, of } = setUp(async ({ publish }, runs) => publish(runs < 5 ? [one] : [one, two]))
  const watched = watch(source)
  await watched.until([one.origin, two.origin])
  await eventually(() => of().runs > 8, 'further runs')
  t.equal(watched.sets.length, 2)
  t.equal(of().updates, 2)
  t.match(source.status(), { kind: 'test', confirmedAt: Number, error: null })
  await source.close()
  const { runs } = of()
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(of().runs, runs, 'no run starts after the end')
})

t.test('errors: the last instances stay, one line says so, and one that it is over', async (t) => {
  const failing = new Set([2, 3, 4])
  const { source, lines, of } = setUp(async ({ publish }, runs) => {
    if (runs === 3) throw new Error('thrown')
    if (failing.has(runs)) await Promise.reject('a text')
    publish([runs < 5 ? one : two])
  })
  const watched = watch(source)
  await watched.until([two.origin])
  t.equal(of().errors, 3)
  t.strictSame(
    watched.sets.map((set) => set.map(({ origin }) => origin)),
    [[one.origin], [two.origin]]
  )
  t.strictSame(
    lines.map(({ level, message }) => [level, message]),
    [
      ['warn', 'Test unavailable; service orders keeps the instances last known'],
      ['info', 'Test available again']
    ]
  )
  await source.close()
})

t.test('a function that throws at once, and one that ends without a result', async (t) => {
  const { source, lines } = setUp(
    (_watching, runs) => {
      if (runs === 1) throw new Error('at once')
      return Promise.resolve()
    },
    {},
    { backoff: 30 }
  )
  watch(source)
  await eventually(() => source.status().error === 'it ended without a result', 'the second failure')
  t.match(lines[0], {
    message: /has no instances, so it responds with 503 until then/,
    fields: { err: { message: 'at once' } }
  })
  await source.close()
})

t.test('a run without a response times out; what it publishes later has no effect', async (t) => {
  const late: Watching[] = []
  const { source, of } = setUp(
    async (watching, runs) => {
      if (runs > 1) {
        watching.publish([two])
        return forever()
      }
      late.push(watching)
      return forever()
    },
    { timeoutMs: 20 }
  )
  const watched = watch(source)
  await watched.until([two.origin])
  t.equal(of().errors, 1)
  t.equal(late[0]!.signal.aborted, true)
  late[0]!.publish([one])
  late[0]!.fail(new Error('late'))
  t.strictSame(watched.origins(), [two.origin])
  t.equal(source.status().error, null)
  await source.close()
})

t.test('runs that never end are bounded, and do not keep the source from closing', async (t) => {
  const ends: (() => void)[] = []
  const { source, of } = setUp(() => new Promise<void>((resolve) => void ends.push(resolve)), { timeoutMs: 5 })
  watch(source)
  await eventually(() => of().errors === 3, 'three runs that time out')
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.equal(of().runs, 3, 'no fourth run begins')
  ends[0]!()
  await eventually(() => of().runs === 4, 'a run after one has ended')
  await source.close()
})

t.test('nothing is published after the end', async (t) => {
  let watching: Watching | undefined
  const { source } = setUp(async (given) => {
    watching = given
    given.publish([one])
    return forever()
  })
  const watched = watch(source)
  await watched.until([one.origin])
  await source.close()
  watching!.publish([two])
  t.equal(watched.sets.length, 1)
  t.equal(watching!.signal.aborted, true)
})

t.test('an empty set must last while instances are in use', async (t) => {
  const steps: Watching[] = []
  const { source } = setUp(
    async (watching) => {
      steps.push(watching)
      watching.publish([one])
      return forever()
    },
    { emptyGraceMs: 40 }
  )
  const watched = watch(source)
  await watched.until([one.origin])
  steps[0]!.publish([])
  t.match(source.status().error, /lists no instance/)
  steps[0]!.publish([one])
  t.equal(source.status().error, null)
  steps[0]!.publish([])
  steps[0]!.fail(new Error('away'))
  await new Promise((resolve) => setTimeout(resolve, 60))
  t.strictSame(watched.origins(), [one.origin], 'a failure since then proves nothing')
  steps[0]!.publish([])
  await watched.until([])
  await source.close()
})

t.test('sets that come too often are published less often, the last one always', async (t) => {
  const { source } = setUp(
    async ({ publish }) => {
      for (let port = 1; port <= 500; port++) publish([spec(port)])
      return forever()
    },
    {},
    { burst: 3, interval: 20 }
  )
  const watched = watch(source)
  await watched.until(['http://127.0.0.1:500'])
  t.ok(watched.sets.length <= 4, `${watched.sets.length} sets`)
  await source.close()
})

t.test('restored instances that are confirmed are not published again', async (t) => {
  const { source } = setUp(async ({ publish }) => publish([one]))
  const watched = watch(source, [one])
  await eventually(() => source.status().confirmedAt !== null, 'the first response')
  t.strictSame(watched.sets, [])
  await source.close()
})

t.test('runs leave no listener behind', async (t) => {
  const made: AbortSignal[] = []
  const { AbortController } = globalThis
  class Recorded extends AbortController {
    constructor() {
      super()
      made.push(this.signal)
    }
  }
  const set = (value: typeof AbortController) => Object.assign(globalThis, { AbortController: value })
  t.teardown(() => set(AbortController))
  set(Recorded)
  const { source, of } = setUp(async ({ publish }, runs) => {
    if (runs % 2 === 0) throw new Error('failed')
    publish([one])
  })
  set(AbortController)
  watch(source)
  await eventually(() => of().runs > 50, 'many runs')
  const [ofSource] = made
  // The current run, or the pause after it, has one.
  t.ok(getEventListeners(ofSource!, 'abort').length <= 1)
  await source.close()
  t.strictSame(getEventListeners(ofSource!, 'abort'), [])
})
