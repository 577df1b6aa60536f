import { write, writeSync } from 'node:fs'

/** Lines wait for each other up to this size or this long: a write each would cost more than making them. */
const heldCharacters = 65_536
const flushMs = 250
/** What nobody takes from the descriptor is dropped beyond this, rather than kept without end. */
const mostCharacters = 16 * 1024 * 1024
/** How often a full pipe is tried again, and how many times once the process ends. */
const retryMs = 50
const lastTries = 20

/**
 * A pino stream: what it `write`s leaves at once, with what was held before it. Not pino's own: that counts anew, with
 * each line, all that it holds, and tries forever to flush into a pipe that nobody reads any more.
 */
export class HeldLines {
  readonly #fd: number
  #held = ''
  #timer: NodeJS.Timeout | null = null
  /** On its way, and how much of it has gone. */
  #sending: Buffer | null = null
  #sent = 0
  /** What is held is to leave once that has gone. */
  #due = false
  #broken = false

  constructor(fd: number) {
    this.#fd = fd
    process.once('exit', () => this.#finish())
  }

  write(line: string): void {
    this.hold(line)
    this.#flush()
  }

  hold(line: string): void {
    if (this.#broken || this.#held.length > mostCharacters) return
    this.#held += line
    if (this.#held.length > heldCharacters) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), flushMs).unref()
  }

  #flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#due = this.#sending !== null
    if (this.#due || this.#held === '') return
    this.#sending = Buffer.from(this.#held)
    this.#sent = 0
    this.#held = ''
    this.#send()
  }

  #send(): void {
    write(this.#fd, this.#sending!, this.#sent, null, null, (error, bytes) => {
      if (error?.code === 'EAGAIN') {
        setTimeout(() => this.#send(), retryMs)
        return
      }
      if (error !== null) this.#broken = true
      this.#sent += bytes ?? 0
      if (!this.#broken && this.#sent < this.#sending!.length) {
        this.#send()
        return
      }
      this.#sending = null
      if (this.#due) this.#flush()
    })
  }

  /** The process ends: what is on its way gets there, the rest is written now. */
  #finish(): void {
    let rest = Buffer.from(this.#broken ? '' : this.#held)
    this.#held = ''
    for (let tries = 0; rest.length > 0 && tries < lastTries; ) {
      try {
        rest = rest.subarray(writeSync(this.#fd, rest))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return
        tries++
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs)
      }
    }
  }
}
