/** A file whose existence switches the maintenance mode on. */
import { statSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { FastifyBaseLogger } from 'fastify'

const intervalMs = 1000

/** Returns whether a file exists. A path that cannot be read, such as for lack of rights, does not. */
export function isPresent(file: string): boolean {
  try {
    statSync(file)
    return true
  } catch {
    return false
  }
}

export class SwitchFile {
  exists: boolean
  readonly #file: string
  readonly #log: FastifyBaseLogger
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(file: string, log: FastifyBaseLogger) {
    this.#file = file
    this.#log = log
    this.exists = isPresent(file)
    if (this.exists) this.#tell()
    this.#schedule()
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #schedule(): void {
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#look(), intervalMs).unref()
  }

  /** The next look waits for the file system, so that a hanging one holds up a single call. */
  async #look(): Promise<void> {
    const exists = await stat(this.#file).then(
      () => true,
      () => false
    )
    if (this.#isClosed) return
    if (exists !== this.exists) {
      this.exists = exists
      this.#tell()
    }
    this.#schedule()
  }

  #tell(): void {
    const file = this.#file
    if (this.exists) this.#log.warn({ file }, 'maintenance mode is on: the file exists')
    else this.#log.info({ file }, 'maintenance mode is off: the file no longer exists')
  }
}
