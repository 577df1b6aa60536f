/**
 * Verifies bcrypt hashes in a worker thread: bcryptjs is JavaScript and would occupy the event loop. This module is also the
 * program of that thread, which the build therefore keeps as a file of its own.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { moduleFile } from '../../../home.ts'

/** Time limit of a password, with those before it. The largest accepted cost takes about a second. */
const LIMIT_MS = 30_000

/** Worker data, by which the module detects that it runs in the thread. */
const program = 'bcrypt'

interface Task {
  readonly id: number
  readonly hash: string
  readonly password: string
}

interface Outcome {
  readonly id: number
  readonly isRight: boolean
}

interface Job {
  readonly resolve: (isRight: boolean) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout
}

/** The thread, which starts with the first password. Its owner bounds the passwords in it. */
export class BcryptThread {
  readonly #jobs = new Map<number, Job>()
  #worker: Worker | null = null
  #lastId = 0

  /** Returns whether a password has this hash. */
  isPasswordOf(hash: string, password: string): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>()
    const id = ++this.#lastId
    const timer = setTimeout(() => {
      void this.#end(new Error(`a bcrypt hash has not been verified within ${LIMIT_MS / 1000} s`))
    }, LIMIT_MS)
    this.#jobs.set(id, { resolve, reject, timer })
    this.#worker ??= this.#start()
    this.#worker.postMessage({ id, hash, password } satisfies Task)
    return promise
  }

  #start(): Worker {
    // Empty environment and options: those of this process may contain secrets, hooks and a debugger.
    const worker = new Worker(moduleFile('plugins/edge/concerns/basic-auth/bcrypt-thread.ts'), {
      workerData: program,
      env: {},
      execArgv: []
    })
    worker.on('message', ({ id, isRight }: Outcome) => this.#take(id)?.resolve(isRight))
    const fail = (error: Error) => {
      if (this.#worker === worker) void this.#end(error)
    }
    worker.on('error', fail)
    worker.on('exit', (code) => fail(new Error(`the thread that verifies bcrypt hashes has ended with code ${code}`)))
    return worker
  }

  #take(id: number): Job | undefined {
    const job = this.#jobs.get(id)
    clearTimeout(job?.timer)
    this.#jobs.delete(id)
    return job
  }

  /** Ends the thread; the next password starts another one. */
  async #end(error: Error): Promise<void> {
    const worker = this.#worker
    this.#worker = null
    for (const id of [...this.#jobs.keys()]) this.#take(id)!.reject(error)
    await worker?.terminate()
  }

  close(): Promise<void> {
    return this.#end(new Error('the gateway is shutting down'))
  }
}

async function run(): Promise<void> {
  const { compareSync } = await import('bcryptjs')
  parentPort!.on('message', ({ id, hash, password }: Task) => {
    parentPort!.postMessage({ id, isRight: compareSync(password, hash) } satisfies Outcome)
  })
}

if (!isMainThread && workerData === program) void run()
