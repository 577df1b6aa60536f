/**
 * Certificates in files, reloaded when they change. If the new files cannot be used, the last credentials stay in use.
 */
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Watch } from '../../watch-files.ts'
import { watchFiles } from '../../watch-files.ts'
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
  #watch: Watch | undefined
  #closed = false

  /** Throws if the files cannot be used, so that the gateway does not start with a broken configuration. */
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

  /** Reason why the newest files are not in use, or null. */
  get error(): string | null {
    return this.#error
  }

  start(): void {
    if (this.#files.length === 0) return
    const paths = this.#files.map(([, file]) => file)
    this.#watch = watchFiles(paths, {
      intervalMs: filesTiming.interval,
      onChange: () => this.#reload(),
      onError: (error) => this.#fail(error)
    })
  }

  async #reload(): Promise<void> {
    try {
      const read = this.#files.map(async ([kind, file]) => [kind, await readFile(file, 'utf8')] as const)
      const texts: Texts = Object.fromEntries(await Promise.all(read))
      if (this.#closed) return
      const same = kinds.every((kind) => texts[kind] === this.#texts[kind])
      if (!same) {
        this.credentials = credentialsOf({ ...texts, minVersion: this.#minVersion })
        this.#texts = texts
        this.#log.info(
          { files: this.#files.map(([, file]) => file) },
          'certificates reloaded; new connections use them'
        )
        this.#onReload('success')
      }
      this.#error = null
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  #fail(error: Error): void {
    this.#error = error.message
    const files = this.#files.map(([, file]) => file)
    this.#log.error({ files, err: error }, 'changed certificates cannot be used; the last ones stay in use')
    this.#onReload('failure')
  }

  close(): void {
    this.#closed = true
    this.#watch?.close()
  }
}
