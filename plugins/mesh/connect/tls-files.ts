/**
 * Certificates in files, read again when they change. The files are asked for their state rather than watched:
 * `fs.watch` loses a file that is replaced by a rename, and sees nothing where a symbolic link above it is swapped, as
 * Kubernetes does. A change counts once a second look finds the same, so that nobody's half-written file is read; one
 * that makes no sense leaves the old credentials in force.
 */
import { readFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import type { Logger } from '../core/types.ts'
import type { CredentialSource, Credentials, Pem } from './credentials.ts'
import { credentialsOf } from './credentials.ts'
import type { UpstreamTlsOptions } from './options.ts'

/** Changed by tests only. */
export const filesTiming = { interval: 2000 }

const kinds = ['ca', 'cert', 'key'] as const
type Kind = (typeof kinds)[number]
type Texts = Partial<Record<Kind, string>>

export class TlsFiles implements CredentialSource {
  credentials: Credentials
  #error: string | null = null
  readonly #files: readonly (readonly [Kind, string])[]
  readonly #minVersion: Pem['minVersion']
  readonly #log: Logger
  readonly #onReload: (outcome: 'success' | 'failure') => void
  #texts: Texts
  /** Of what was last taken or refused; null before the first look. */
  #taken: string | null = null
  #seen: string | null = null
  #timer: NodeJS.Timeout | undefined
  #closed = false

  /** Throws when the files are not good now: a gateway does not start half-configured. */
  constructor(options: UpstreamTlsOptions, log: Logger, onReload: (outcome: 'success' | 'failure') => void) {
    this.#files = kinds.flatMap((kind) => (options[kind] === undefined ? [] : [[kind, options[kind]] as const]))
    this.#minVersion = options.minVersion
    this.#log = log
    this.#onReload = onReload
    try {
      this.#texts = Object.fromEntries(this.#files.map(([kind, file]) => [kind, readFileSync(file, 'utf8')]))
      this.credentials = credentialsOf({ ...this.#texts, minVersion: this.#minVersion })
    } catch (error) {
      const files = this.#files.map(([, file]) => file).join(', ')
      throw new Error(`mesh.tls: ${(error as Error).message} (${files})`, { cause: error })
    }
  }

  /** Why the newest files are not in use, or null. */
  get error(): string | null {
    return this.#error
  }

  start(): void {
    if (this.#files.length > 0) this.#next()
  }

  #next(): void {
    if (this.#closed) return
    this.#timer = setTimeout(() => void this.#look(), filesTiming.interval).unref()
  }

  async #look(): Promise<void> {
    const found = await this.#state()
    if (found !== this.#taken && found === this.#seen) {
      this.#taken = found
      await this.#reload()
    }
    this.#seen = found
    this.#next()
  }

  async #state(): Promise<string> {
    const states = this.#files.map(async ([, file]) => {
      const { ino, size, mtimeNs } = await stat(file, { bigint: true })
      return `${ino}/${size}/${mtimeNs}`
    })
    return (await Promise.all(states.map((state) => state.catch((error: Error) => error.message)))).join(' ')
  }

  async #reload(): Promise<void> {
    const files = this.#files.map(([, file]) => file)
    try {
      const read = this.#files.map(async ([kind, file]) => [kind, await readFile(file, 'utf8')] as const)
      const texts: Texts = Object.fromEntries(await Promise.all(read))
      if (this.#closed) return
      const same = kinds.every((kind) => texts[kind] === this.#texts[kind])
      if (!same) {
        this.credentials = credentialsOf({ ...texts, minVersion: this.#minVersion })
        this.#texts = texts
        this.#log.info({ files }, 'certificates read again; new connections use them')
        this.#onReload('success')
      }
      this.#error = null
    } catch (error) {
      this.#error = (error as Error).message
      this.#log.error({ files, err: this.#error }, 'certificates cannot be used; the ones before stay in force')
      this.#onReload('failure')
    }
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }
}
