/** The share of a split for a call: a match before the weights, the weights by chance or by a sticky key. */
import t from 'tap'
import type { HashSource, SplitShare } from '../../config/schema.ts'
import type { DispatchOptions } from '../../plugins/mesh/core/types.ts'
import { split } from '../../plugins/mesh/split.ts'
import { meshOf, Recorder, service } from '../helpers/mesh/mesh.ts'
import { upstream } from '../helpers/mesh/servers.ts'

/** Returns the service that each call was sent to. */
function drawing(shares: SplitShare[], stickOn?: HashSource, random: () => number = Math.random) {
  let drawn = ''
  const targets = shares.map((share) => ({
    share,
    dispatch: () => {
      drawn = share.service
      return true
    }
  }))
  const dispatch = split(targets, stickOn, { random })
  return (opts: Partial<DispatchOptions> = {}): string => {
    dispatch({ path: '/', method: 'GET', ...opts }, {})
    return drawn
  }
}

const shares: SplitShare[] = [
  { service: 'old', weight: 95 },
  { service: 'new', weight: 5, match: { headers: { 'X-Beta': '1' }, cookies: { lab: 'yes' } } },
  { service: 'vip', weight: 0, match: { consumers: ['alice', 'bob'] } }
]
const caller = (id: string | null) => ({ ip: '10.0.0.1', consumer: id === null ? null : { id }, trusted: false })

t.test('a match has precedence over the weights, and all its conditions must hold', async (t) => {
  const draw = drawing(shares, undefined, () => 0)
  t.equal(draw(), 'old')
  t.equal(draw({ headers: ['x-beta', '1', 'cookie', 'a=b; lab=yes'] }), 'new')
  t.equal(draw({ headers: { 'X-BETA': '1', Cookie: 'lab=yes' } }), 'new', 'headers in an object match')
  t.equal(draw({ headers: ['x-beta', '1'] }), 'old', 'a request without the cookie does not match')
  t.equal(draw({ headers: ['x-beta', '2', 'cookie', 'lab=yes'] }), 'old', 'another header value does not match')
  t.equal(draw({ caller: caller('bob') }), 'vip')
  t.equal(draw({ caller: caller('eve') }), 'old')
  t.equal(draw({ caller: caller(null) }), 'old')
  t.equal(
    draw({ headers: ['x-beta', '1', 'cookie', 'lab=yes'], caller: caller('alice') }),
    'new',
    'the first match decides'
  )
})

t.test('weights are respected, and a weight of 0 gets only matching calls', async (t) => {
  let state = 1
  const random = () => {
    state = (state * 16807) % 2147483647
    return state / 2147483647
  }
  const draw = drawing(shares, undefined, random)
  const counts: Record<string, number> = { old: 0, new: 0, vip: 0 }
  for (let i = 0; i < 10_000; i++) counts[draw()]!++
  t.ok(Math.abs(counts.new! - 500) < 100, String(counts.new))
  t.equal(counts.vip, 0)
})

t.test('a sticky key goes to the same share each time, in proportion to the weights', async (t) => {
  const draw = drawing(shares, 'header:x-user', () => 0)
  const counts: Record<string, number> = { old: 0, new: 0, vip: 0 }
  for (let i = 0; i < 10_000; i++) {
    const opts = { headers: ['x-user', `user-${i}`] }
    const first = draw(opts)
    counts[first]!++
    if (draw(opts) !== first) t.fail(`user-${i} moved`)
  }
  t.ok(Math.abs(counts.new! - 500) < 100, String(counts.new))
  t.equal(draw(), 'old', 'without a sticky key: by chance')
})

t.test('when a canary grows, no key leaves it', async (t) => {
  const at = (weight: number) =>
    drawing(
      [
        { service: 'new', weight },
        { service: 'old', weight: 100 - weight }
      ],
      'ip'
    )
  const [small, large] = [at(5), at(50)]
  let grown = 0
  for (let i = 0; i < 2000; i++) {
    const opts = { caller: { ...caller(null), ip: `10.0.${i >> 8}.${i & 255}` } }
    if (small(opts) === 'new' && large(opts) === 'old') t.fail(`${i} left`)
    if (large(opts) === 'new') grown++
  }
  t.ok(Math.abs(grown - 1000) < 150, String(grown))
})

t.test('a caller without the sticky cookie gets one, and keeps its share', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const mesh = meshOf(t, [service('a', [a.url]), service('b', [b.url])], { random: Math.random })
  const policy = {
    split: [
      { service: 'a', weight: 50 },
      { service: 'b', weight: 50 }
    ],
    stickOn: 'cookie:lane' as const
  }
  const ask = async (cookie?: string) => {
    const { body, headers } = await mesh.request({
      origin: 'http://a.mesh',
      path: '/',
      method: 'GET',
      ...(cookie !== undefined && { headers: { cookie } }),
      mesh: policy
    } as Parameters<typeof mesh.request>[0])
    return { name: await body.text(), given: headers['set-cookie'] }
  }
  for (let i = 0; i < 8; i++) {
    const first = await ask()
    const [value = ''] = String(first.given).split(';')
    t.match(String(first.given), /^lane=[0-9a-f]{16}; Path=\/; HttpOnly; SameSite=Lax$/)
    for (let j = 0; j < 3; j++) t.strictSame(await ask(value), { name: first.name, given: undefined })
  }
  t.ok(a.requests.length > 0 || b.requests.length > 0)
})

t.test('a share may select a subset of its service', async (t) => {
  const [blue, green] = [await upstream(t, 'blue'), await upstream(t, 'green')]
  const config = {
    ...service('shop', []),
    subsets: { green: { tags: ['green'] }, eu: { meta: { region: 'eu' } } }
  }
  const discovery = {
    source: () => ({
      start: (publish: (specs: never[]) => void) =>
        publish([
          { id: '1', origin: blue.url, weight: 1, tags: ['blue'], meta: { region: 'eu' } },
          { id: '2', origin: green.url, weight: 1, tags: ['green'], meta: {} }
        ] as never[]),
      status: () => ({ kind: 'by hand', confirmedAt: 0, error: null }),
      close: async () => {}
    }),
    close: async () => {}
  }
  const mesh = meshOf(t, [config], { discovery: discovery as never })
  const to = async (policy: object) => {
    const recorder = new Recorder()
    mesh.dispatch({ origin: 'http://shop.mesh', path: '/', method: 'GET', mesh: policy }, recorder)
    await recorder.done
    return recorder.body || recorder.error?.code
  }
  for (let i = 0; i < 4; i++) {
    t.equal(await to({ split: [{ service: 'shop', subset: 'green', weight: 1 }] }), 'green')
    t.equal(await to({ subset: 'eu' }), 'blue')
  }
  t.equal(await to({ subset: 'nowhere' }), 'JW_NO_INSTANCE')
})
