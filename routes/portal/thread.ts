/**
 * Makes the bodies of a portal in a worker thread: documents of services may be large or hostile, and would occupy the event
 * loop. This module is also the program of that thread, which the build therefore keeps as a file of its own.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { moduleFile } from '../../plugins/home.ts'
import type { Outcome, Task } from './build.ts'
import { builtFrom } from './build.ts'

/** Time limit of the thread; twenty documents of 2 MB take some seconds. */
const LIMIT_MS = 30_000

/** Memory limit of the thread. */
const LIMIT_MB = 1024

/** Worker data, by which the module detects that it runs in the thread. */
interface Data {
  readonly portalTask: Task
}

/** Makes the bodies. Rejects if the thread ends before, such as because it exceeds its limits. */
export async function buildInThread(portalTask: Task): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
  // Empty environment and options: those of this process may contain secrets, hooks and a debugger.
  const worker = new Worker(moduleFile('routes/portal/thread.ts'), {
    workerData: { portalTask } satisfies Data,
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: LIMIT_MB }
  })
  // A process that ends does not wait for it.
  worker.unref()
  worker.on('message', resolve)
  worker.on('error', reject)
  worker.on('exit', (code) => reject(new Error(`the thread that makes a portal has ended with code ${code}`)))
  const timer = setTimeout(
    reject,
    LIMIT_MS,
    new Error(`a portal has not been made within ${LIMIT_MS / 1000} s`)
  ).unref()
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}

if (!isMainThread && workerData?.portalTask !== undefined) {
  parentPort!.postMessage(builtFrom((workerData as Data).portalTask))
}
