import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'

/** Batched lines are written once they have this size or this age: a write for each costs more than making the line. */
const batchCharacters = 65_536
const batchMs = 250
/** Most characters that wait for a reader who does not read; lines beyond are dropped. */
const maxHeldCharacters = 16 * 1024 * 1024
/** Pause before a full pipe is tried again: short for a reader that is just behind, doubled up to this for one that stopped. */
const maxPauseMs = 50
/** Pause before a descriptor whose last write failed is tried again, if no line tries it sooner. */
const failedWriteMs = 1000
/** Longest wait for a slow reader as the process ends; a reader that took nothing for as long before has stopped. */
const patienceMs = 1000

const newline = 10

/** Formats the line that reports dropped lines: their number, and the error code of the last failed write. */
export type FormatDropped = (lines: number, reason: string) => string

/**
 * A pino destination that never blocks the process and outlives failures of its descriptor. A full disk or a closed pipe
 * costs the lines of that write; a reader that has stopped costs lines once the buffer is full. Dropped lines are
 * counted, and reported in the log when writing works again. pino's own destination waits for a blocked pipe, also at
 * the end of the process, and gives up after an error.
 */
export class LogWriter {
  readonly #fd: number
  readonly #formatDropped: FormatDropped
  #held = ''
  #timer: NodeJS.Timeout | null = null
  /** The buffer under way: its own report of dropped lines comes first, then lines. */
  #sending: { bytes: Buffer; sent: number; reportLength: number; reported: number } | null = null
  #isWriting = false
  /** Lines were written while a buffer was under way; they follow it at once. */
  #flushNext = false
  /** The descriptor's last byte is not the end of a line, since a write failed after a part of it. */
  #isWithinLine = false
  /** Time of the first try since which a full pipe has taken nothing. */
  #fullSince: number | null = null
  #pauseMs = 1
  #dropped = 0
  #unreported = 0
  #reason = ''
  #waiting: (() => void)[] = []

  constructor(fd: number, formatDropped: FormatDropped) {
    this.#fd = nonBlocking(fd)
    this.#formatDropped = formatDropped
    process.once('exit', () => this.#finish())
  }

  /** Lines dropped since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Writes a line, and all that are batched, in this event-loop iteration. */
  write(line: string): void {
    this.batch(line)
    this.#flush()
  }

  /** Writes a line with others, at most 250 ms later. */
  batch(line: string): void {
    if (this.#held.length > maxHeldCharacters) {
      this.#drop(1, 'EAGAIN')
      return
    }
    this.#held += line
    if (this.#held.length > batchCharacters) this.#flush()
    else this.#schedule(batchMs)
  }

  /** Resolves once all lines are written or dropped, at the latest after `timeoutMs`. */
  async flushed(timeoutMs: number): Promise<void> {
    this.#flush()
    if (this.#sending === null) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push(resolve)
    const timer = setTimeout(resolve, timeoutMs)
    await promise
    clearTimeout(timer)
  }

  #schedule(ms: number): void {
    this.#timer ??= setTimeout(() => this.#flush(), ms).unref()
  }

  #flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#sending !== null) {
      this.#flushNext = true
      return
    }
    this.#sending = this.#take()
    if (this.#sending !== null) this.#send()
  }

  /** Empties what is held into one buffer, behind a report of the lines that were dropped before it. */
  #take() {
    if (this.#held === '' && this.#unreported === 0) return null
    const end = this.#isWithinLine ? '\n' : ''
    const report = end + (this.#unreported > 0 ? this.#formatDropped(this.#unreported, this.#reason) : '')
    const bytes = Buffer.from(report + this.#held)
    this.#held = ''
    return { bytes, sent: 0, reportLength: Buffer.byteLength(report), reported: this.#unreported }
  }

  #send(): void {
    const { bytes, sent } = this.#sending!
    this.#isWriting = true
    write(this.#fd, bytes, sent, null, null, (error, written) => {
      this.#isWriting = false
      if (error?.code === 'EAGAIN') {
        this.#fullSince ??= performance.now()
        setTimeout(() => this.#send(), this.#pauseMs).unref()
        this.#pauseMs = Math.min(this.#pauseMs * 2, maxPauseMs)
        return
      }
      this.#fullSince = null
      this.#pauseMs = 1
      this.#sending!.sent += error === null ? written : 0
      if (error === null && this.#sending!.sent < bytes.length) this.#send()
      else this.#sentOrFailed(error)
    })
  }

  #sentOrFailed(error: NodeJS.ErrnoException | null): void {
    const { bytes, sent, reportLength, reported } = this.#sending!
    this.#sending = null
    if (sent > 0) this.#isWithinLine = bytes[sent - 1] !== newline
    if (sent >= reportLength) this.#unreported -= reported
    if (error !== null) {
      this.#drop(linesIn(bytes, Math.max(sent, reportLength)), error.code ?? 'unknown')
      this.#schedule(failedWriteMs)
    } else if (this.#flushNext || this.#unreported > 0) {
      this.#flushNext = false
      this.#flush()
    }
    if (this.#sending !== null) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  #drop(lines: number, reason: string): void {
    this.#dropped += lines
    this.#unreported += lines
    this.#reason = reason
  }

  /** Writes what is left as the process ends. A write under way is completed by Node itself. */
  #finish(): void {
    const deadline =
      this.#fullSince !== null && performance.now() - this.#fullSince > patienceMs ? 0 : performance.now() + patienceMs
    const unsent = this.#sending !== null && !this.#isWriting ? this.#sending.bytes.subarray(this.#sending.sent) : ''
    let rest = Buffer.concat([Buffer.from(unsent), this.#take()?.bytes ?? Buffer.alloc(0)])
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(this.#fd, rest))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() > deadline) return
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
      }
    }
  }
}

/** Number of line ends from an offset on. */
function linesIn(bytes: Buffer, from: number): number {
  let lines = 0
  for (let at = bytes.indexOf(newline, from); at !== -1; at = bytes.indexOf(newline, at + 1)) lines++
  return lines
}

/**
 * A descriptor of the same target on which a write returns EAGAIN instead of waiting for a reader. A thread of Node's
 * pool that waits keeps the process from ending, even by `process.exit()`.
 */
function nonBlocking(fd: number): number {
  const target = fstatSync(fd)
  if (target.isFIFO() || target.isCharacterDevice()) {
    try {
      // Opened anew, so that other processes with the same pipe keep their flags, and cannot change ours.
      return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
    } catch {
      // Not on Linux, or a pipe that belongs to another user.
    }
  }
  // Node makes the pipe or socket of its own stream non-blocking when the stream is first used.
  return fd === 1 ? process.stdout.fd : fd
}
