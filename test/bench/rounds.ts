// CPU time per request, in short slices: within a round the contenders alternate every half second, so that a
// disturbance affects all of them, and the ratios of a round hold.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench, Contender } from './contenders.ts'
import { launch, subjectCore } from './contenders.ts'
import type { Load, LoadResult } from './load.ts'
import type { Spread } from './measure.ts'
import { coreBusyUs, cpuUs, memory, spread } from './measure.ts'
import type { Scenario } from './scenarios.ts'
import type { Subject } from './subjects.ts'
import { baseline } from './subjects.ts'

export interface Row {
  readonly subject: string
  readonly cpuUs: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly peakBytes: number
  /** CPU per request by that of the reference in the same round. */
  readonly ratio: Spread
  /** CPU per request above that of the reference in the same round, in microseconds. */
  readonly addedUs: Spread
  /** Bytes per CPU second, and their ratio to nginx's, in scenarios with large bodies. */
  readonly bytesPerCpuSecond?: number
  readonly toNginx?: Spread
  /** Share of the core's time that went to others, in the median round. */
  readonly disturbance: number
  readonly failures: number
}

/** Work of a contender in a slice, or in all slices of a round. */
interface Work {
  readonly us: number
  readonly cpu: number
  readonly othersCpu: number
  readonly requests: number
}

interface Measured {
  readonly contender: Contender
  readonly load: Load
  readonly rounds: Work[]
  failures: number
}

/** Length of a slice: long enough for caches to be warm again, short enough for two in a round. */
const sliceMs = 500
const warmUpMs = 12_000
/** Maximum share of the subject's core that other processes may use in a slice. The kernel counts the core's time in steps of 10 ms. */
const tolerated = 0.1

/** Work of a subject, over one launch or several. */
interface Tally {
  readonly name: string
  readonly rounds: readonly Work[]
  readonly latencies: readonly LoadResult[]
  readonly peakBytes: number
  readonly failures: number
}

/** Measures rounds of several launches, since the CPU time of a Node program differs by up to a fifth between launches. */
export async function measureRounds(
  scenario: Scenario,
  subjects: readonly Subject[],
  bench: Bench
): Promise<{ reference: string; rows: Row[] }> {
  let all: Tally[] = []
  for (let launched = 0; launched < bench.launches; launched++) {
    const records = await measureLaunch(scenario, subjects, bench)
    all = launched === 0 ? records : all.map((sofar, i) => joined(sofar, records[i]!))
  }
  const reference = all.find(({ name }) => name === (scenario.reference ?? baseline)) ?? all[0]!
  const nginx = all.find(({ name }) => name === 'nginx')
  return { reference: reference.name, rows: all.map((each) => rowOf(each, { scenario, reference, nginx })) }
}

function joined(one: Tally, other: Tally): Tally {
  return {
    name: one.name,
    rounds: [...one.rounds, ...other.rounds],
    latencies: [...one.latencies, ...other.latencies],
    peakBytes: Math.max(one.peakBytes, other.peakBytes),
    failures: one.failures + other.failures
  }
}

async function measureLaunch(scenario: Scenario, subjects: readonly Subject[], bench: Bench): Promise<Tally[]> {
  const contenders: Contender[] = []
  try {
    for (const subject of subjects) {
      for (const size of scenario.sizes ?? [undefined]) contenders.push(await launch(subject, scenario, bench, size))
    }
    for (const contender of contenders) await warmUp(contender, scenario, bench)
    const all: Measured[] = []
    for (const contender of contenders) {
      all.push({ contender, load: await begin(contender, scenario, bench), rounds: [], failures: 0 })
    }
    for (let round = 0; round < bench.rounds; round++) await measureRound(all, bench)
    for (const each of all) each.failures += (await each.load.end()).failures
    const latencies = await measureLatencies(all, scenario, bench)
    return all.map(({ contender: { name, running }, rounds, failures }, i) => ({
      name,
      rounds,
      latencies: latencies[i]!,
      peakBytes: memory(running.pid, 'VmHWM'),
      failures
    }))
  } finally {
    await Promise.all(contenders.map(({ running }) => running.stop()))
  }
}

/** Opens the connections of the clients, and pauses the clients until their first slice. */
async function begin(contender: Contender, scenario: Scenario, bench: Bench): Promise<Load> {
  const load = await bench.generator.start({ ...contender, scenario })
  await sleep(sliceMs)
  load.pause()
  return load
}

/**
 * Sends load until the code is compiled and the heap has grown, which costs all Node programs CPU time for eight seconds and
 * more. Throws if a request fails.
 */
export async function warmUp(contender: Contender, scenario: Scenario, { generator }: Bench): Promise<void> {
  const trial = await generator.start({ ...contender, scenario })
  await sleep(warmUpMs)
  const { failures } = await trial.end()
  if (failures > 0) throw new Error(`${contender.name}: ${failures} failed requests in ${scenario.name}`)
}

/** Runs one round: slices until each contender has had its seconds. */
async function measureRound(all: readonly Measured[], { seconds, origin }: Bench): Promise<void> {
  const slices = Math.max(1, Math.round((seconds * 1000) / sliceMs))
  const sums = all.map((): Work => ({ us: 0, cpu: 0, othersCpu: 0, requests: 0 }))
  for (let index = 0; index < slices; index++) {
    // The order is reversed in every other pass, so that a steady change over time favours no contender.
    const order = [...all.keys()]
    for (const i of index % 2 === 0 ? order : order.reverse()) {
      const work = await leastDisturbedSlice(all[i]!, () => origin.requests())
      const sum = sums[i]!
      sums[i] = {
        us: sum.us + work.us,
        cpu: sum.cpu + work.cpu,
        othersCpu: sum.othersCpu + work.othersCpu,
        requests: sum.requests + work.requests
      }
    }
  }
  all.forEach(({ rounds }, i) => {
    rounds.push(sums[i]!)
  })
}

/** Repeats a slice in which other processes used much of the core, up to three times, and returns the least disturbed one. */
async function leastDisturbedSlice(measured: Measured, requests: () => Promise<number>): Promise<Work> {
  const disturbance = (work: Work) => work.othersCpu / work.us
  let best = await slice(measured, requests)
  for (let tries = 1; tries < 4 && disturbance(best) > tolerated; tries++) {
    const next = await slice(measured, requests)
    if (disturbance(next) < disturbance(best)) best = next
  }
  return best
}

/** Measures one slice. CPU time is read while the subject is idle, so that it is that of exactly these requests. */
async function slice({ contender, load }: Measured, requests: () => Promise<number>): Promise<Work> {
  const { pid } = contender.running
  const before = { requests: await requests(), cpu: cpuUs(pid), busy: coreBusyUs(subjectCore) }
  const from = performance.now()
  load.go()
  await sleep(sliceMs)
  load.pause()
  const us = (performance.now() - from) * 1000
  await untilIdle(pid)
  const cpu = cpuUs(pid) - before.cpu
  const othersCpu = coreBusyUs(subjectCore) - before.busy - cpu
  return { us, cpu, othersCpu, requests: ((await requests()) - before.requests) / contender.calls }
}

/** Waits until the subject uses no more CPU: requests were in flight when the clients stopped. */
async function untilIdle(pid: number): Promise<void> {
  let before = cpuUs(pid)
  for (let tries = 0; tries < 20; tries++) {
    await sleep(15)
    const now = cpuUs(pid)
    if (now - before < 300) return
    before = now
  }
}

/** Measures latencies apart from the slices, since the pauses between slices would count as latency. */
async function measureLatencies(all: readonly Measured[], scenario: Scenario, bench: Bench): Promise<LoadResult[][]> {
  const results = all.map((): LoadResult[] => [])
  for (let round = 0; round < 3; round++) {
    for (const [i, { contender }] of all.entries()) {
      const load = await bench.generator.start({ ...contender, scenario })
      await sleep(Math.max(1, bench.seconds) * 1000)
      results[i]!.push(await load.end())
    }
  }
  return results
}

interface Compared {
  readonly scenario: Scenario
  readonly reference: Tally
  readonly nginx: Tally | undefined
}

function rowOf({ name, rounds, latencies, peakBytes, failures }: Tally, compared: Compared): Row {
  const { scenario, reference, nginx } = compared
  const cpuOf = ({ cpu, requests }: Work) => cpu / requests
  const over = (of: (work: Work, round: number) => number) => spread(rounds.map(of))
  const cpu = over(cpuOf).median
  const bytes = scenario.responseBytes
  return {
    subject: name,
    p50Ms: spread(latencies.map(({ p50Ms }) => p50Ms)).median,
    p99Ms: spread(latencies.map(({ p99Ms }) => p99Ms)).median,
    cpuUs: cpu,
    perSecond: over(({ requests, us }) => (requests / us) * 1e6).median,
    peakBytes,
    ratio: over((work, round) => cpuOf(work) / cpuOf(reference.rounds[round]!)),
    addedUs: over((work, round) => cpuOf(work) - cpuOf(reference.rounds[round]!)),
    disturbance: Math.max(0, over(({ othersCpu, us }) => othersCpu / us).median),
    failures: latencies.reduce((sum, { failures }) => sum + failures, failures),
    ...(bytes !== undefined && {
      bytesPerCpuSecond: (bytes / cpu) * 1e6,
      ...(nginx && { toNginx: over((work, round) => cpuOf(nginx.rounds[round]!) / cpuOf(work)) })
    })
  }
}
