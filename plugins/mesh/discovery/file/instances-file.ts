/** One file with instances, for all services that it lists. */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { asError } from '../../../thrown.ts'
import { watchFile } from '../../../watch-files.ts'
import type { InstanceSpec, MeshDeps } from '../../core/types.ts'
import type { Listed } from '../described.ts'
import { Shared } from '../shared.ts'
import type { Watching } from '../watched.ts'

interface FileOptions {
  readonly interval: number
  readonly maxSize: number
}

const isList = (listed: Listed): listed is readonly InstanceSpec[] => Array.isArray(listed)

export class InstancesFile {
  readonly #path: string
  readonly #options: FileOptions
  readonly #log: MeshDeps['log']
  readonly #shared: Shared<Listed>
  #isFailing = false
  /** Services that follow the file, and that it does not list. */
  readonly #unlisted = new Set<string>()

  constructor(path: string, options: FileOptions, { log }: Pick<MeshDeps, 'log'>) {
    this.#path = path
    this.#options = options
    this.#log = log
    this.#shared = new Shared(() => this.#watch())
  }

  /** Publishes the instances of a service, now and after each change of the file. */
  follow(watching: Watching, service: string): Promise<void> {
    return this.#shared.follow(watching, (listed) => {
      const instances = isList(listed) ? listed : listed.get(service)
      if (instances !== undefined) {
        this.#unlisted.delete(service)
        watching.publish(instances)
      } else watching.fail(this.#unlistedFault(service))
    })
  }

  /** Returns the error for a service that the file does not list, and logs it once. */
  #unlistedFault(service: string): Error {
    const message = `${this.#path} does not list the service ${service}`
    if (!this.#unlisted.has(service))
      this.#log.warn({ path: this.#path, service }, `${message}; it keeps the instances last known`)
    this.#unlisted.add(service)
    return new Error(message)
  }

  /** Reads the file, and again when it changes. Returns a function that ends this. */
  #watch(): () => void {
    let watch: { close(): void } | null = null
    let isOver = false
    const read = async () => {
      const digest = await this.#read(() => isOver)
      if (isOver || watch !== null) return
      watch = watchFile(this.#path, {
        intervalMs: this.#options.interval,
        ...(digest !== null && { known: digest }),
        onChange: async () => void (await this.#read(() => isOver)),
        onError: (error) => this.#fail(error)
      })
    }
    void read()
    return () => {
      isOver = true
      watch?.close()
    }
  }

  /** Reads the file and returns the digest of its content; null if it cannot be read. Never rejects. */
  async #read(isOver: () => boolean): Promise<string | null> {
    let digest: string | null = null
    try {
      const bytes = await readBounded(this.#path, this.#options.maxSize)
      digest = createHash('sha256').update(bytes).digest('hex')
      const { parseInstances } = await import('./parse.ts')
      const listed = await parseInstances(bytes.toString(), this.#path)
      if (isOver()) return digest
      await this.#shared.set(listed)
      if (isOver()) return digest
      if (this.#isFailing) this.#log.info({ path: this.#path }, 'the file with instances can be used again')
      this.#isFailing = false
    } catch (error) {
      if (!isOver()) this.#fail(asError(error))
    }
    return digest
  }

  #fail(error: Error): void {
    this.#shared.fail(error)
    if (this.#isFailing) return
    this.#isFailing = true
    const message = 'the file with instances cannot be used; its services keep the instances last known'
    this.#log.warn({ path: this.#path, err: error }, `${message}: ${error.message}`)
  }
}

/** Reads a regular file of at most this size. */
async function readBounded(path: string, maxSize: number): Promise<Buffer> {
  // Opening a pipe would otherwise wait for a writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = await file.stat()
    if (!stats.isFile()) throw new Error(`${path} is not a file`)
    const tooLarge = () => new Error(`${path} is larger than discovery.file.maxSize (${maxSize} bytes)`)
    if (stats.size > maxSize) throw tooLarge()
    const buffer = Buffer.alloc(stats.size + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length)
      length += bytesRead
      // Rest of the file that was appended since: the next look finds it.
      if (bytesRead === 0 || length === buffer.length) return buffer.subarray(0, length)
    }
  } finally {
    await file.close()
  }
}
