import { close, constants, fstatSync, openSync, write, writeSync } from 'node:fs'

/** Size and age at which a batch of lines is written. A write per line would cost more CPU than formatting it. */
const batchCharacters = 65_536
const batchMs = 250
/** Maximum of buffered characters and bytes while stdout is not read; further lines are dropped. */
const longestBuffer = 16 * 1024 * 1024
/** Maximum delay before a full pipe is retried. The delay starts at 1 ms and doubles. */
const maxPauseMs = 50
/** Delay before a descriptor is retried whose last write failed, unless a new line retries it sooner. */
const failedWriteMs = 1000
/** Longest wait for a slow reader at the end of the process. There is no wait if the pipe has been full for longer already. */
const patienceMs = 1000

const newline = 10

/** Writers whose remaining lines are written at the end of the process. */
const open = new Set<LogWriter>()

function finishAll(): void {
  for (const writer of open) writer.finish()
}

/** The listener exists only as long as a writer does: a program that imports the gateway without running it has none. */
function opened(writer: LogWriter): void {
  if (open.size === 0) process.on('exit', finishAll)
  open.add(writer)
}

function closed(writer: LogWriter): void {
  if (open.delete(writer) && open.size === 0) process.off('exit', finishAll)
}

interface WriterOptions {
  /** Formats the line that reports dropped lines: their number, and the error code of the last failed write. */
  readonly formatDropped?: (lines: number, reason: string) => string
  /** Called with the number of lines that are dropped. */
  readonly onDropped?: (lines: number, reason: string) => void
  /** Maximum of characters and bytes that are buffered. */
  readonly longest?: number
}

/**
 * A pino destination that never blocks the process and survives errors of its descriptor. With a full disk or a closed pipe,
 * the lines of that write are lost; if the pipe is not read, lines are lost once the buffer is full. Lost lines are counted
 * and reported in the log when writing works again. pino's own destination blocks on a full pipe, also at the end of the
 * process, and stops after an error.
 */
export class LogWriter {
  #fd: number
  readonly #formatDropped: NonNullable<WriterOptions['formatDropped']>
  readonly #onDropped: WriterOptions['onDropped']
  readonly #longest: number
  #held = ''
  #timer: NodeJS.Timeout | null = null
  /** The buffer that is being written: a report of dropped lines, if any, and then lines. */
  #sending: { bytes: Buffer; sent: number; reportLength: number; reported: number } | null = null
  #isWriting = false
  /** Descriptor that takes the place of the current one after the write in progress. */
  #nextFd: number | null = null
  #isClosed = false
  /** True if a flush was requested during a write; it follows the write at once. */
  #flushNext = false
  /** True if the last byte written is not the end of a line, since a write failed part-way. */
  #isWithinLine = false
  /** Time since which the pipe has been full. */
  #fullSince: number | null = null
  #pauseMs = 1
  #dropped = 0
  #unreported = 0
  #reason = ''
  #waiting: (() => void)[] = []

  constructor(fd: number, { formatDropped = () => '', onDropped, longest = longestBuffer }: WriterOptions = {}) {
    this.#fd = fd
    this.#formatDropped = formatDropped
    this.#onDropped = onDropped
    this.#longest = longest
    opened(this)
  }

  /** Lines dropped since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Writes a line and all batched lines in this event-loop iteration. */
  write(line: string): void {
    this.batch(line)
    this.#flush()
  }

  /** Adds a line to the batch, which is written at most 250 ms later. */
  batch(line: string): void {
    const sending = this.#sending
    const unsent = sending === null ? 0 : sending.bytes.length - sending.sent
    if (this.#isClosed || this.#held.length + unsent > this.#longest) {
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

  /** Writes further lines to another descriptor, and closes the current one. A write in progress ends first. */
  replace(fd: number): void {
    if (this.#sending !== null) {
      if (this.#nextFd !== null) close(this.#nextFd, () => {})
      this.#nextFd = fd
      return
    }
    close(this.#fd, () => {})
    this.#fd = fd
    this.#isWithinLine = false
  }

  /** Writes the remaining lines, at the latest until `timeoutMs`, and closes the descriptor. Further lines are dropped. */
  async close(timeoutMs: number): Promise<void> {
    await this.flushed(timeoutMs)
    this.#isClosed = true
    closed(this)
    if (this.#timer !== null) clearTimeout(this.#timer)
    // During a write the number of the descriptor must not become that of another file.
    if (!this.#isWriting) this.#closeNow()
  }

  #closeNow(): void {
    if (this.#nextFd !== null) close(this.#nextFd, () => {})
    close(this.#fd, () => {})
    const held = linesIn(Buffer.from(this.#held), 0)
    this.#held = ''
    if (held > 0) this.#drop(held, 'closed')
    if (this.#sending === null) return
    const { bytes, sent, reportLength } = this.#sending
    this.#sending = null
    this.#drop(linesIn(bytes, Math.max(sent, reportLength)), 'closed')
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

  /** Moves the held lines into one buffer, after a report of the lines that were dropped before them. */
  #take() {
    if (this.#held === '' && this.#unreported === 0) return null
    const end = this.#isWithinLine ? '\n' : ''
    const report = end + (this.#unreported > 0 ? this.#formatDropped(this.#unreported, this.#reason) : '')
    const bytes = Buffer.from(report + this.#held)
    this.#held = ''
    return { bytes, sent: 0, reportLength: Buffer.byteLength(report), reported: this.#unreported }
  }

  #send(): void {
    // The writer was closed during the pause before a retry.
    if (this.#sending === null) return
    const { bytes, sent } = this.#sending
    this.#isWriting = true
    write(this.#fd, bytes, sent, null, null, (error, written) => {
      this.#isWriting = false
      if (this.#isClosed) {
        this.#sending!.sent += error === null ? written : 0
        this.#closeNow()
        return
      }
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
    if (this.#nextFd !== null) {
      const fd = this.#nextFd
      this.#nextFd = null
      this.replace(fd)
    }
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
    this.#onDropped?.(lines, reason)
  }

  /** Writes the remaining lines synchronously at the end of the process. Node completes a pending write itself. */
  finish(): void {
    const lastMs =
      this.#fullSince !== null && performance.now() - this.#fullSince > patienceMs ? 0 : performance.now() + patienceMs
    const unsent = this.#sending !== null && !this.#isWriting ? this.#sending.bytes.subarray(this.#sending.sent) : ''
    let rest = Buffer.concat([Buffer.from(unsent), this.#take()?.bytes ?? Buffer.alloc(0)])
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(this.#fd, rest))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() > lastMs) return
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
      }
    }
  }
}

/** Counts the newlines from an offset on. */
function linesIn(bytes: Buffer, from: number): number {
  let lines = 0
  for (let at = bytes.indexOf(newline, from); at !== -1; at = bytes.indexOf(newline, at + 1)) lines++
  return lines
}

/**
 * Returns a descriptor for the same target on which a write returns EAGAIN instead of blocking. A blocked thread of Node's
 * pool would keep the process from ending, even by `process.exit()`.
 */
export function nonBlocking(fd: number): number {
  const target = fstatSync(fd)
  if (target.isFIFO() || target.isCharacterDevice()) {
    try {
      // Opened again, so that the flags are not shared with other processes that have the same pipe.
      return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
    } catch {
      // Not on Linux, or a pipe that belongs to another user.
    }
  }
  // Node makes the pipe or socket of its own stream non-blocking when the stream is first used.
  return fd === 1 ? process.stdout.fd : fd
}
