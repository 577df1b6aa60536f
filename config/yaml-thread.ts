/** Runs the YAML parser in a worker thread; this module is also the program of that thread, which the build therefore keeps as a file of its own. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { moduleFile } from '../plugins/home.ts'
import type { Position } from './faults.ts'
import type { ParsedYaml } from './yaml-source.ts'
import { parseYaml, SyntaxFault } from './yaml-source.ts'

/** Time limit of the thread; parsing 10 MB takes a second. */
const LIMIT_MS = 30_000

/** Worker data, by which the module detects that it runs as the parser thread. */
interface Task {
  readonly yaml: string
}

type Outcome =
  | { readonly parsed: ParsedYaml }
  | { readonly fault: { readonly position: Position; readonly message: string } }

/** Parses a text. Rejects with a `SyntaxFault` as `parseYaml` throws it. */
export async function parseInThread(yaml: string): Promise<ParsedYaml> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
  // Empty environment and options: those of this process may contain secrets, hooks and a debugger.
  const worker = new Worker(moduleFile('config/yaml-thread.ts'), {
    workerData: { yaml } satisfies Task,
    env: {},
    execArgv: []
  })
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
