/** A file to which lines are appended. It is opened again when its path leads to another file, as after a rotation. */
import { close, constants, fstat, open, openSync, stat } from 'node:fs'
import { LogWriter } from '../../log-writer.ts'

/** Time between two looks at the path. */
const lookMs = 1000
/** Least time between two lines of the log that report dropped lines. */
const quietMs = 60_000
/** Longest wait for the last lines when the file is closed. */
const closeMs = 2000

const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY
/** Others on the machine cannot read it. */
const mode = 0o640

export interface LogFileOptions {
  readonly path: string
  /** Maximum of characters and bytes that are kept. */
  readonly longest: number
  readonly log: { error(fields: object, message: string): void }
  readonly onDropped: (lines: number) => void
}

export class LogFile {
  readonly #path: string
  readonly #log: LogFileOptions['log']
  readonly #writer: LogWriter
  readonly #timer: NodeJS.Timeout
  /** Identity of the open file. */
  #id = ''
  #isLooking = false
  #isClosed = false
  /** Code of the failure to open the path again that was reported last. */
  #reported: string | undefined

  /** Throws if the file cannot be opened. */
  constructor({ path, longest, log, onDropped }: LogFileOptions) {
    this.#path = path
    this.#log = log
    let quietUntil = 0
    let dropped = 0
    const fd = openSync(path, flags, mode)
    this.#writer = new LogWriter(fd, {
      longest,
      onDropped: (lines, reason) => {
        onDropped(lines)
        dropped += lines
        const now = performance.now()
        if (now < quietUntil) return
        quietUntil = now + quietMs
        const why = reason === 'EAGAIN' ? 'the buffer is full' : reason
        log.error({ file: path, lines: dropped, reason }, `access log ${path}: ${dropped} lines were dropped (${why})`)
        dropped = 0
      }
    })
    this.#identify(fd)
    this.#timer = setInterval(() => this.#look(), lookMs).unref()
  }

  /** Writes a line, with its end, within 250 ms. */
  batch(line: string): void {
    this.#writer.batch(line)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    await this.#writer.close(closeMs)
  }

  #identify(fd: number): void {
    fstat(fd, (error, stats) => {
      if (error === null) this.#id = idOf(stats)
    })
  }

  /** Compares the path with the open file. On a file system that hangs, no second call begins. */
  #look(): void {
    if (this.#isLooking || this.#id === '') return
    this.#isLooking = true
    stat(this.#path, (error, stats) => {
      this.#isLooking = false
      if (this.#isClosed || (error === null && idOf(stats) === this.#id)) return
      this.#openAgain()
    })
  }

  #openAgain(): void {
    this.#isLooking = true
    open(this.#path, flags, mode, (error, fd) => {
      this.#isLooking = false
      if (this.#isClosed) {
        if (error === null) close(fd, () => {})
        return
      }
      if (error !== null) {
        if (error.code !== this.#reported) {
          const message = `access log ${this.#path} cannot be opened again (${error.code}); its lines go to the file that was there before`
          this.#log.error({ file: this.#path, err: error }, message)
        }
        this.#reported = error.code
        return
      }
      this.#reported = undefined
      this.#id = ''
      this.#writer.replace(fd)
      this.#identify(fd)
    })
  }
}

const idOf = ({ dev, ino }: { readonly dev: number; readonly ino: number }) => `${dev}:${ino}`
