/** Secrets of the configuration, and of files that may change. */
import { readFileSync, statSync } from 'node:fs'
import type { Watch } from '../../../watch-files.ts'
import { watchFiles } from '../../../watch-files.ts'
import type { Logger } from '../../core/types.ts'

/** Interval of the polls; changed by tests only. */
export const secretTiming = { interval: 2000 }

/** Largest file of a secret, in bytes. */
const mostBytes = 64 * 1024

/** Returns whether a text can be the value of a header: printable ASCII without blanks at its ends. */
export const isFieldValue = (text: string): boolean => /^[!-~](?:[\t -~]*[!-~])?$/.test(text)

/** Returns the secret in a file: its text without the line break at the end. Throws an error without the text. */
export function readSecret(path: string): string {
  // First, because a pipe would block the process.
  const stats = statSync(path)
  if (!stats.isFile()) throw new Error(`${path} is not a file`)
  if (stats.size > mostBytes) throw new Error(`${path} is larger than ${mostBytes} bytes`)
  const text = readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  if (text === '') throw new Error(`${path} is empty`)
  return text
}

/** A header whose value is made of a secret that does not change, or of one in a file. */
export class StaticSecret {
  value: string
  readonly #file: string | undefined
  readonly #format: (secret: string) => string
  readonly #log: Logger
  readonly #service: string
  #error: string | null = null
  #watch: Watch | undefined

  /** Throws if the file cannot be used, so that the gateway does not start with a broken configuration. */
  constructor(
    secret: string | undefined,
    file: string | undefined,
    format: (secret: string) => string,
    service: string,
    log: Logger
  ) {
    this.#file = file
    this.#format = format
    this.#service = service
    this.#log = log
    this.value = file === undefined ? format(secret!) : this.#read(file)
  }

  #read(file: string): string {
    const value = this.#format(readSecret(file))
    if (!isFieldValue(value)) throw new Error(`${file} has characters that a header cannot have`)
    return value
  }

  start(): void {
    const file = this.#file
    if (file === undefined) return
    this.#watch = watchFiles([file], {
      intervalMs: secretTiming.interval,
      onChange: () => this.#reload(file),
      onError: (error) => this.#fail(error)
    })
  }

  #reload(file: string): void {
    try {
      const value = this.#read(file)
      const isNew = value !== this.value
      this.value = value
      if (isNew || this.#error !== null) {
        this.#log.info({ service: this.#service, file }, `the credentials of ${this.#service} have been read again`)
      }
      this.#error = null
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  #fail(err: Error): void {
    this.#error = err.message
    const message = `the credentials of ${this.#service} cannot be read: ${err.message}; the last ones stay in use`
    this.#log.warn({ service: this.#service, err }, message)
  }

  close(): void {
    this.#watch?.close()
  }

  get error(): string | null {
    return this.#error
  }
}
