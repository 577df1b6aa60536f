// slow: starts Consul
/** More services than an agent accepts connections: by hand, and against a real agent. */
import { Agent } from 'node:http'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { QueryLimiter, queryLimiterTiming } from '../../../plugins/mesh/discovery/consul/query-limiter.ts'
import type { RunQuery, ServiceQuery } from '../../../plugins/mesh/discovery/consul-query.ts'
import { ConsulConnectionLimit } from '../../../plugins/mesh/discovery/consul-query.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { startConsul } from '../../helpers/consul.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

const reset = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' })
const question = (name: string): ServiceQuery => ({ service: name, datacenter: undefined, index: 1n, wait: 60_000 })

/** An agent that holds so many blocking queries and refuses the rest. */
function agent(t: Test, most: number, refusal: () => Error, timing: Partial<typeof queryLimiterTiming> = {}) {
  const { surroundings, lines } = recording()
  const limiter = new QueryLimiter(new Agent(), surroundings.log, surroundings.now, {
    ...queryLimiterTiming,
    many: 4,
    settle: 20,
    turn: 60,
    trial: 120,
    ...timing
  })
  const abort = new AbortController()
  t.teardown(() => {
    abort.abort()
    limiter.close()
  })
  const state = { most, held: 0, peak: 0, queries: {} as Record<string, number>, waits: new Set<number>() }
  const ask: RunQuery = async ({ service, wait }, signal) => {
    await sleep(2)
    if (state.held >= state.most) throw refusal()
    state.held++
    state.peak = Math.max(state.peak, state.held)
    state.waits.add(wait)
    try {
      await sleep(wait, undefined, { signal })
    } finally {
      state.held--
    }
    state.queries[service] = (state.queries[service] ?? 0) + 1
    return { index: 1n, entries: [], filtered: false }
  }
  const errors: unknown[] = []
  const loop = async (name: string) => {
    while (!abort.signal.aborted) {
      await limiter
        .wrap(ask)(question(name), abort.signal)
        .catch(async (error) => {
          if (!abort.signal.aborted) errors.push(error)
          await sleep(30)
        })
    }
  }
  return { state, lines, errors, loop, limiter, ask, abort }
}

for (const [name, refusal] of [
  ['429', () => new ConsulConnectionLimit('Consul responded with 429')],
  ['closed connections', reset]
] as const) {
  t.test(`${name}: the services share the connections, and each is queried`, async (t) => {
    const { state, lines, errors, loop } = agent(t, 10, refusal)
    for (let i = 0; i < 30; i++) void loop(`s${i}`)
    await eventually(() => Object.keys(state.queries).length === 30)
    // Blocking queries must end first; some services are queried only then.
    await sleep(300)
    const refused = errors.length
    state.peak = 0
    state.queries = {}
    await eventually(() => Object.keys(state.queries).length === 30)
    await eventually(() => Object.values(state.queries).every((count) => count >= 3))
    t.ok(errors.length - refused <= 2, `${errors.length - refused} more refused`)
    t.ok(state.peak <= 8, `${state.peak} at a time`)
    t.ok(state.waits.has(60))
    t.ok(errors.at(-1) instanceof ConsulConnectionLimit)
    t.match(String(errors.at(-1)), name === '429' ? /429/ : /raise limits\.http_max_conns_per_client/)
    t.match(lines, [{ level: 'warn', message: /raise limits\.http_max_conns_per_client of the Consul agent/ }])
    t.equal(lines.length, 1)
  })
}

t.test('when the agent allows more, all services have blocking queries again, and a line is logged', async (t) => {
  const { state, lines, loop } = agent(t, 10, reset, { retry: 300, trialFor: 300 })
  for (let i = 0; i < 30; i++) void loop(`s${i}`)
  await eventually(() => lines.length === 1)
  state.most = 100
  await eventually(() => state.held === 30)
  await eventually(() => lines.length === 2)
  t.match(lines[1], { level: 'info', message: /no longer share/ })
})

t.test('an agent that crashes and resets all queries is not at its connection limit', async (t) => {
  const { limiter, lines, abort } = agent(t, 10, reset)
  const death = Promise.withResolvers<never>()
  death.promise.catch(() => {})
  const held = Array.from({ length: 20 }, (_, i) => limiter.wrap(() => death.promise)(question(`s${i}`), abort.signal))
  death.reject(reset())
  const ends = await Promise.allSettled(held)
  t.ok(ends.every((end) => end.status === 'rejected' && !(end.reason instanceof ConsulConnectionLimit)))
  t.same(lines, [])
})

t.test('one reset among many held queries does not lower the limit', async (t) => {
  const { limiter, state, lines, loop, abort } = agent(t, 100, reset)
  for (let i = 0; i < 20; i++) void loop(`s${i}`)
  await eventually(() => state.held === 20)
  const fail: RunQuery = async () => Promise.reject(reset())
  await t.rejects(limiter.wrap(fail)(question('x'), abort.signal), { code: 'ECONNRESET' })
  t.same(lines, [])
})

t.test('a query that is aborted while it waits leaves the queue', async (t) => {
  const { limiter, ask, state, errors, loop } = agent(
    t,
    10,
    () => new ConsulConnectionLimit('Consul responded with 429'),
    {
      turn: 300
    }
  )
  for (let i = 0; i < 20; i++) void loop(`s${i}`)
  await eventually(() => errors.length > 0 && state.waits.has(300))
  const leaving = new AbortController()
  const leavingQuery = limiter.wrap(ask)(question('leaving'), leaving.signal)
  await sleep(5)
  leaving.abort()
  await t.rejects(leavingQuery, { name: 'AbortError' })
  await eventually(() => Object.keys(state.queries).length === 20)
  t.notOk('leaving' in state.queries)
})

/** Returns true if the agent keeps the connection. */
async function connects(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  let open = true
  socket.once('close', () => {
    open = false
  })
  socket.resume()
  await sleep(300)
  socket.destroy()
  return open
}

t.test('services share the connections of a real agent that accepts fewer', async (t) => {
  const consul = await startConsul({ config: { limits: { http_max_conns_per_client: 60 } } })
  t.teardown(consul.stop)
  const { surroundings, lines } = recording()
  const names = Array.from({ length: 120 }, (_, i) => `service-${i}`)
  const register = (name: string, port: number) => {
    const Service = { ID: `${name}-${port}`, Service: name, Address: '127.0.0.1', Port: port }
    return consul.api('PUT', '/v1/catalog/register', { Node: 'farm', Address: '127.0.0.1', Service })
  }
  for (const name of names) t.equal((await register(name, 1)).status, 200)
  const discovery = createDiscovery({ consul: { url: consul.url, wait: 60_000, maxStale: 60_000 } }, surroundings)
  t.teardown(() => discovery.close())
  const sources = names.map((name) => {
    const source = discovery.source(service(name))
    return { source, ...watch(source) }
  })
  await eventually(() => sources.every(({ sets }) => sets.at(-1)?.length === 1), 'one instance each', 60_000)
  const crowded = lines.filter(({ message }) => /raise limits/.test(message))
  t.equal(crowded.length, 1)
  t.comment(crowded[0]?.fields)
  const others = await Promise.all(Array.from({ length: 8 }, () => connects(consul.httpPort)))
  t.notOk(others.includes(false), 'other clients at this address can connect')
  const began = performance.now()
  for (const name of names) await register(name, 2)
  await eventually(() => sources.every(({ sets }) => sets.at(-1)?.length === 2), 'two instances each', 60_000)
  t.comment(`all 120 changes seen ${(performance.now() - began).toFixed(0)} ms after the first`)
  await eventually(
    () => sources.filter(({ source }) => source.status().error === null).length === 120,
    'all to be served',
    30_000
  )
})
