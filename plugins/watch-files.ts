/**
 * Reports when the content of files changes. It polls: `fs.watch` loses a file that is replaced by a rename, sees nothing
 * where a symbolic link above the file is swapped, as Kubernetes does, and does not work on network file systems.
 *
 * Content is compared by its SHA-256, so that a file that is only touched has not changed. It is read again when inode,
 * size, mtime or ctime are different from those of the last look, in whichever direction: clocks may be set back.
 */
import type { Hash } from 'node:crypto'
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

export interface WatchOptions {
  /** Milliseconds between two looks. */
  intervalMs: number
  /**
   * Called when two looks in a row have found the same new content, so that no half-written file is read. Called, too, once
   * files can be read again after an error. A caller that may know the content already compares it. The next look waits
   * for the promise, which must not be rejected.
   */
  onChange: () => void | Promise<void>
  /** Called once when files cannot be read at two looks in a row, or when the file system hangs; not again before they can. */
  onError: (error: Error) => void
}

export interface Watch {
  /** Ends it. Neither function is called any more. */
  close(): void
}

/** Watches files together: they count as changed once none of them changes any more. A folder stands for the files in it. */
export const watchFiles = (paths: readonly string[], options: WatchOptions): Watch => new Poller(paths, options, null)

/**
 * Watches one file. `known`: the SHA-256 of the content that the caller has read, in hexadecimal, or its first digits.
 * Without it the first content that is found counts as changed.
 */
export const watchFile = (file: string, options: WatchOptions & { known?: string }): Watch =>
  new Poller([file], options, options.known ?? null)

/**
 * Two edits within one tick of a file system's clock have the same times. File systems count in up to two seconds, so
 * content that was read within this time after its times were first seen is read again.
 */
const coarsestClockMs = 3000

/** Time after which a look that has not ended is an error. The look goes on: one that hangs is never joined by another. */
const hangsMs = 10_000

/** Content of a file at the last look. */
interface Content {
  readonly stamp: string
  /** When this stamp was first seen, and when the content was read last; by the monotonic clock. */
  readonly seenAt: number
  readonly readAt: number
  readonly digest: string
}

class Poller implements Watch {
  readonly #paths: readonly string[]
  readonly #options: WatchOptions
  /** Digest that the caller knows of, and a new one that was found once. */
  #known: string | null
  #candidate: string | null = null
  #contents = new Map<string, Content>()
  #failures = 0
  #isFailing = false
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(paths: readonly string[], options: WatchOptions, known: string | null) {
    this.#paths = paths
    this.#options = options
    this.#known = known
    this.#schedule()
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
  }

  #schedule(): void {
    if (this.#closed) return
    this.#timer = setTimeout(() => void this.#look(), this.#options.intervalMs).unref()
  }

  async #look(): Promise<void> {
    const hanging = setTimeout(() => {
      this.#fail(new Error(`the file system has not responded for ${hangsMs / 1000} s: ${this.#paths.join(', ')}`))
    }, hangsMs).unref()
    let isChanged = false
    try {
      isChanged = this.#compare(await this.#digest())
      this.#failures = 0
    } catch (error) {
      // A file may be missing for a moment while another takes its place.
      this.#candidate = null
      if (++this.#failures > 1) this.#fail(error as Error)
    }
    clearTimeout(hanging)
    if (isChanged && !this.#closed) await this.#options.onChange()
    this.#schedule()
  }

  /** Returns whether the content is new and was the same at the last look. */
  #compare(digest: string): boolean {
    this.#isFailing = false
    const isKnown = this.#known !== null && digest.startsWith(this.#known)
    const isChanged = !isKnown && digest === this.#candidate
    this.#candidate = isKnown || isChanged ? null : digest
    if (isChanged) this.#known = digest
    return isChanged
  }

  #fail(error: Error): void {
    if (this.#closed || this.#isFailing) return
    this.#isFailing = true
    this.#known = null
    this.#options.onError(error)
  }

  /** Returns the SHA-256 of a single file's bytes; of several, of what identifies their contents. */
  async #digest(): Promise<string> {
    const contents = new Map<string, Content>()
    const digests: string[] = []
    for (const path of this.#paths) {
      const stats = await stat(path)
      digests.push(stats.isDirectory() ? await this.#folder(path, contents) : await this.#file(path, stats, contents))
    }
    // Those of files that are gone are forgotten.
    this.#contents = contents
    return digests.length === 1 ? digests[0]! : digestOf(digests)
  }

  /** Subfolders do not count, nor hidden files, among which are the folders behind the links that Kubernetes makes. */
  async #folder(path: string, contents: Map<string, Content>): Promise<string> {
    const names = (await readdir(path)).filter((name) => !name.startsWith('.')).sort()
    const files: string[] = []
    for (const name of names) {
      const file = join(path, name)
      // A link that leads nowhere must not hide changes of the files beside it.
      const stats = await stat(file).catch(ignoreMissing)
      if (stats?.isFile()) files.push(name, await this.#file(file, stats, contents))
    }
    return digestOf(files)
  }

  async #file(path: string, stats: { isFile(): boolean }, contents: Map<string, Content>): Promise<string> {
    // To open a pipe would take what somebody else is to read.
    if (!stats.isFile()) throw new Error(`${path} is neither a file nor a folder`)
    // A network file system asks its server when a file is opened, and may show old times before.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await handle.stat({ bigint: true })
      const stamp = [dev, ino, size, mtimeNs, ctimeNs].join('/')
      const before = this.#contents.get(path)
      const isSame = before?.stamp === stamp
      const now = performance.now()
      const seenAt = isSame ? before.seenAt : now
      const isSettled = isSame && before.readAt - seenAt > coarsestClockMs
      const content = isSettled ? before : { stamp, seenAt, readAt: now, digest: await hashed(handle) }
      contents.set(path, content)
      return content.digest
    } finally {
      await handle.close()
    }
  }
}

const sha256 = (): Hash => createHash('sha256')
const digestOf = (texts: readonly string[]) => sha256().update(JSON.stringify(texts)).digest('hex')

async function hashed(handle: FileHandle): Promise<string> {
  const sum = sha256()
  const buffer = Buffer.allocUnsafe(64 * 1024)
  for (let position = 0; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position)
    if (bytesRead === 0) return sum.digest('hex')
    sum.update(buffer.subarray(0, bytesRead))
    position += bytesRead
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT' || error.code === 'ELOOP') return null
  throw error
}
