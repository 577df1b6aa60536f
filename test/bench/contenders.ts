// A running subject, on a core of its own.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { Running } from '../helpers/processes.ts'
import { freePort, isListening, start } from '../helpers/processes.ts'
import type { Generator } from './load.ts'
import type { Origin } from './origin.ts'
import type { Scenario, Size } from './scenarios.ts'
import { one } from './scenarios.ts'
import type { Subject } from './subjects.ts'

/** The options and programs that all measurements share. */
export interface Bench {
  readonly folder: string
  readonly checkout: string
  readonly origin: Origin
  readonly consulUrl: string
  readonly redisUrl: string
  readonly generator: Generator
  /** Launches of each subject. */
  readonly launches: number
  /** Rounds of each launch. */
  readonly rounds: number
  readonly seconds: number
}

export interface Contender {
  readonly name: string
  readonly running: Running
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly clients: readonly Readonly<Record<string, string>>[]
  readonly calls: number
}

export const subjectCore = 0

/** Moves this process off the subjects' core. Processes that it starts inherit this, except for the subjects. */
export function leaveSubjectCore(): void {
  const cores = availableParallelism()
  if (cores < 2) throw new Error('the subject and its load need a core each')
  const { status, stderr } = spawnSync('taskset', ['-cp', `1-${cores - 1}`, `${process.pid}`], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`taskset failed: ${stderr}`)
}

export async function launch(subject: Subject, scenario: Scenario, bench: Bench, size?: Size): Promise<Contender> {
  const name = size === undefined ? subject.name : `${subject.name}, ${size.label}`
  const port = await freePort()
  const folder = join(bench.folder, name.replace(/[^\w]+/g, '-'))
  const { consulUrl, redisUrl, origin } = bench
  const checkout = subject.checkout ?? bench.checkout
  const setup = { port, originPort: origin.port, consulUrl, redisUrl, folder, checkout, size: size ?? one }
  const {
    command,
    args,
    env = process.env,
    prefix = '',
    headers = {},
    clients = [],
    calls = 1,
    query = ''
  } = await subject.launch(setup)
  const running = await start({
    command: 'taskset',
    args: ['-c', String(subjectCore), command, ...args],
    env,
    name,
    ready: () => isListening(port),
    timeout: 60_000
  }).catch((error: Error) => {
    const log = join(folder, 'gateway.log')
    throw new Error(error.message + (existsSync(log) ? readFileSync(log, 'utf8').slice(-2000) : ''))
  })
  return { name, running, url: `http://127.0.0.1:${port}${prefix}${scenario.path}${query}`, headers, clients, calls }
}
