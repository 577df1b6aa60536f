// The cost of a connection that is open and idle.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Running } from '../helpers/processes.ts'
import { start } from '../helpers/processes.ts'
import type { Bench, Contender } from './contenders.ts'
import { launch } from './contenders.ts'
import { cpuUs, memory } from './measure.ts'
import { warmUp } from './rounds.ts'
import type { Scenario } from './scenarios.ts'
import type { Subject } from './subjects.ts'

export interface IdleRow {
  readonly subject: string
  /** Resident memory with the first connections only, and with all. */
  readonly before: number
  readonly after: number
  readonly bytesPerConnection: number
  /** Of one core, with all connections open. */
  readonly cpuShare: number
}

/** Number of connections that are opened first and not counted: they fill the free space of the heap after the warm-up. */
const first = 1000
const watchedMs = 10_000

export async function measureIdle(scenario: Scenario, subject: Subject, bench: Bench): Promise<IdleRow> {
  const connections = scenario.idle!
  const contender = await launch(subject, scenario, bench)
  const { pid } = contender.running
  const groups: Running[] = []
  try {
    await warmUp(contender, scenario, bench)
    groups.push(await open(contender, first))
    const before = await settled(pid)
    groups.push(await open(contender, connections))
    const after = await settled(pid)
    const from = cpuUs(pid)
    await sleep(watchedMs)
    const cpuShare = (cpuUs(pid) - from) / 1000 / watchedMs
    for (const group of groups) {
      await group.stop()
      if (!group.output().includes('closed 0')) throw new Error(`${subject.name} closed connections: ${group.output()}`)
    }
    const bytesPerConnection = (after - before) / connections
    return { subject: subject.name, before, after, bytesPerConnection, cpuShare }
  } finally {
    await Promise.all([...groups, contender.running].map((running) => running.stop()))
  }
}

function open({ name, url, headers }: Contender, count: number): Promise<Running> {
  const program = join(import.meta.dirname, 'idle-clients.ts')
  return start({
    command: 'node',
    args: [program, url, String(count), ...Object.entries(headers).flat()],
    name: `clients of ${name}`,
    ready: /^open$/m,
    timeout: 60_000
  })
}

/** Returns the resident memory once it is stable: the garbage collector runs some seconds after the last request. */
async function settled(pid: number): Promise<number> {
  const seen: number[] = []
  for (;;) {
    await sleep(1000)
    seen.push(memory(pid, 'VmRSS'))
    const last = seen.slice(-6)
    const still = last.length === 6 && Math.max(...last) - Math.min(...last) < 0.005 * last[0]!
    if (still || seen.length === 25) return seen.at(-1)!
  }
}
