/** The YAML parser in a thread of its own; this module is that thread's program, too. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { Position } from './faults.ts'
import type { ParsedYaml } from './yaml-source.ts'
import { parseYaml, SyntaxFault } from './yaml-source.ts'

/** Time that the thread has: it takes a second for 10 MB. */
const LIMIT_MS = 30_000

/** Data of a thread that parses, by which it knows that this is its program. */
interface Task {
  readonly yaml: string
}

type Outcome =
  | { readonly parsed: ParsedYaml }
  | { readonly fault: { readonly position: Position; readonly message: string } }

/** Parses a text. Rejects with a `SyntaxFault` as `parseYaml` throws it. */
export async function parseInThread(yaml: string): Promise<ParsedYaml> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
  // It needs nothing of this process's environment and options, which may hold secrets, hooks and a debugger.
  const worker = new Worker(new URL(import.meta.url), { workerData: { yaml } satisfies Task, env: {}, execArgv: [] })
  worker.on('message', resolve)
  worker.on('error', reject)
  worker.on('exit', (code) => reject(new Error(`the thread that parses YAML has ended with code ${code}`)))
  const timer = setTimeout(reject, LIMIT_MS, new Error(`the file has not been parsed within ${LIMIT_MS / 1000} s`))
  try {
    const outcome = await promise
    if ('parsed' in outcome) return outcome.parsed
    throw new SyntaxFault(outcome.fault.position, outcome.fault.message)
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}

function run({ yaml }: Task): void {
  try {
    const parsed = parseYaml(yaml)
    parentPort!.postMessage({ parsed } satisfies Outcome, [parsed.events.buffer, parsed.ends.buffer])
  } catch (error) {
    if (!(error instanceof SyntaxFault)) throw error
    const { position, message } = error
    parentPort!.postMessage({ fault: { position, message } } satisfies Outcome)
  }
}

if (!isMainThread && typeof workerData?.yaml === 'string') run(workerData)
