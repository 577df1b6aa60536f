// A scenario under steady load: calm, a fault, recovery; and the assertions that hold for every fault.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import type { Member } from './fleet.ts'
import type { Cost, Gateway } from './gateway.ts'
import type { Sent } from './steady.ts'
import { percentile, Steady } from './steady.ts'

export interface Scenario {
  gateway: Gateway
  /** Service of the gateway; its route has the same name. */
  service: string
  /** Instances that the fault is injected into. */
  victims: readonly Member[]
  fault: (victim: Member) => Promise<unknown>
  heal: (victim: Member) => Promise<unknown>
  /** Returns true if the fault had an effect on the gateway; otherwise the test would show nothing. */
  felt: (cost: Cost, load: Steady, faultAt: number) => boolean
  /** True if the victims are ejected from the balance. */
  out: boolean
  /** Percentile of the latencies that must be normal again; 99 unless set. */
  percent?: number
  /** Milliseconds for which the fault lasts once the load avoids the victims. */
  lasts?: number
}

export const rate = 200
/** Outlier detection interval of the configuration under test, in milliseconds. */
export const interval = 1000
const budget = 0.2
/** Retries that the budget allows in ten seconds besides its share of the calls. */
const budgetFloor = 100

/** GETs over which a percentile is taken. */
const stretch = 150
/** Latencies below are normal, also on a loaded machine. The attempt timeout is far above. */
const normalMs = 150
const slackMs = 4000

export async function run(t: Test, scenario: Scenario): Promise<void> {
  const { gateway, service, victims, fault, heal, felt, out, percent = 99, lasts = 1000 } = scenario
  const before = await gateway.cost(service)
  const load = new Steady(`${gateway.url}/${service}`, { rate, postEvery: 20 })
  t.teardown(() => load.destroy())
  await waitFor('calm', () => load.gets().filter(({ ms }) => ms !== null).length >= stretch + 50)
  await allRespond(load, 0, victims)
  const calm = percentile(load.gets().slice(50), 99)
  const bound = Math.max(3 * calm, normalMs)

  const faultAt = performance.now()
  let adaptedMs: number
  let healedAt: number
  let reasons: Record<string, string>
  try {
    const begun = Promise.all(victims.map(fault))
    const watched = out ? watch(gateway, service, victims) : {}
    const noticed = waitFor('the fault has an effect', async () => {
      await sleep(100)
      return felt(since(before, await gateway.cost(service)), load, faultAt)
    })
    ;[adaptedMs, reasons] = await Promise.all([untilNormal(load, faultAt, bound, percent), watched, begun, noticed])
    await sleep(lasts)
  } finally {
    healedAt = performance.now()
    await Promise.all(victims.map(heal))
  }
  await whole(gateway, service)
  await allRespond(load, healedAt, victims)
  const backMs = Math.round(performance.now() - healedAt)
  await untilNormal(load, performance.now(), bound, percent)
  await load.stop()

  const cost = since(before, await gateway.cost(service))
  t.comment(`p99 ${calm} ms in calm; normal ${adaptedMs} ms after the fault; back ${backMs} ms after its end`)
  t.comment(`out: ${JSON.stringify(reasons)}`)
  report(t, load, cost)
  t.strictSame(load.failures('GET').map(failureSince(faultAt)), [], 'no idempotent request failed')
  t.ok(adaptedMs <= 2 * interval + slackMs, `p${percent} was normal again after ${adaptedMs} ms`)
  within(t, cost)
}

/** Resolves when each instance has served a GET that was sent after `from`. */
async function allRespond(load: Steady, from: number, members: readonly Member[]): Promise<void> {
  const names = new Set(members.map(({ name }) => name))
  const responded = () => new Set(load.gets(from).map(({ instance }) => instance))
  await waitFor(`${[...names]} respond`, () => names.isSubsetOf(responded()))
}

/** Resolves when all instances are available at the gateway. */
export async function whole(gateway: Gateway, service: string, count = 6): Promise<void> {
  await waitFor('all are available', async () => {
    const instances = await gateway.instances(service)
    return instances.length === count && instances.every(({ available }) => available)
  })
}

/** Returns the time of a failure after `from`, and its message. */
export const failureSince = (from: number) => (sent: Sent) => `${Math.round(sent.at - from)} ms: ${sent.failure}`

/** Returns the milliseconds after `from` at which a stretch of GETs with normal latencies began. */
export async function untilNormal(load: Steady, from: number, bound: number, percent = 99): Promise<number> {
  let beginning = 0
  await waitFor(
    `p${percent} of at most ${bound} ms`,
    () => {
      const due = load.gets(from).filter(({ at }) => at <= performance.now() - bound)
      const last = due.slice(-stretch)
      beginning = last[0]?.at ?? 0
      return last.length === stretch && percentile(last, percent) <= bound
    },
    15_000
  )
  return Math.round(beginning - from)
}

/** Resolves with the reasons when the gateway has listed each of these instances as unavailable. */
async function watch(gateway: Gateway, service: string, members: readonly Member[]): Promise<Record<string, string>> {
  const reasons: Record<string, string> = {}
  await waitFor(`${members.map(({ name }) => name)} are out`, async () => {
    await sleep(30) // no busy loop: the gateway has one core
    const instances = await gateway.instances(service)
    for (const { name } of members) {
      const instance = instances.find((each) => each.name === name)
      if (instance === undefined) reasons[name] = 'deregistered'
      else for (const [concern, why] of Object.entries(instance.obstacles)) reasons[name] ??= `${concern}: ${why}`
    }
    return members.every(({ name }) => reasons[name] !== undefined)
  })
  return reasons
}

export function since(before: Cost, after: Cost): Cost {
  const retries = Object.entries(after.retries).map(([reason, count]) => [
    reason,
    count - (before.retries[reason] ?? 0)
  ])
  return {
    calls: after.calls - before.calls,
    attempts: after.attempts - before.attempts,
    retries: Object.fromEntries(retries.filter(([, count]) => count !== 0)),
    hedges: after.hedges - before.hedges,
    overflows: after.overflows - before.overflows
  }
}

/** Asserts that every attempt beyond the first is a retry or a hedge, and that they are within the budget. */
export function within(t: Test, { calls, attempts, retries, hedges }: Cost): void {
  const again = Object.values(retries).reduce((sum, count) => sum + count, 0) + hedges
  t.equal(attempts - calls, again, 'every further attempt is a retry or a hedge')
  t.ok(again <= budget * calls + budgetFloor, `${again} retries of ${calls} calls are within the budget`)
}

export function report(t: Test, load: Steady, { calls, attempts, ...cost }: Cost): void {
  const posts = load.sent.filter(({ method }) => method === 'POST').length
  const failed = load.failures('POST').length
  t.comment(`${load.gets().length} GETs; POSTs: ${failed} of ${posts} failed; p50/p99 by second: ${load.perSecond()}`)
  t.comment(`${(attempts / calls).toFixed(3)} attempts a call: ${JSON.stringify(cost)}`)
}
