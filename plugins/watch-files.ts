/**
 * Reports changes of files' contents, by polling: `fs.watch` loses a file that is replaced by a rename, does not notice a
 * swapped symbolic link above the file (Kubernetes), and does not work on network file systems.
 *
 * Contents are compared by SHA-256, so touching a file is not a change. A file is read again when its inode, size, mtime or
 * ctime differ from the last poll, in either direction, since clocks may be set back.
 */
import type { Hash } from 'node:crypto'
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

export interface WatchOptions {
  /** Milliseconds between two polls. */
  intervalMs: number
  /**
   * Called when two polls in a row find the same new content, so that no half-written file is used; and when files can be
   * read again after an error, even if the content is the same. The next poll waits for the promise, which must not reject.
   */
  onChange: () => void | Promise<void>
  /** Called once when two polls in a row cannot read the files, or when the file system hangs; again only after a successful poll. */
  onError: (error: Error) => void
}

export interface Watch {
  /** Stops polling; neither function is called any more. */
  close(): void
}

/** Watches several files as one: a change is reported once all of them are stable. A folder stands for the files in it. */
export const watchFiles = (paths: readonly string[], options: WatchOptions): Watch => new Poller(paths, options, null)

/**
 * Watches one file. `known`: the SHA-256 of the content that the caller has read, in hexadecimal, or its first digits.
 * Without it, the first content found is reported as a change.
 */
export const watchFile = (file: string, options: WatchOptions & { known?: string }): Watch =>
  new Poller([file], options, options.known ?? null)

/**
 * Two edits within one tick of a file system's clock have the same timestamps. Ticks are up to two seconds long, so a file
 * is read again until its timestamps have been unchanged for this time.
 */
const coarsestClockMs = 3000

/** Time after which a poll is reported as hanging. It continues, and no other poll starts beside it. */
const hangsMs = 10_000

/** Content of a file at the last poll. */
interface Content {
  readonly stamp: string
  /** Times at which this stamp was first seen and the content was last read; of the monotonic clock. */
  readonly seenAt: number
  readonly readAt: number
  readonly digest: string
}

class Poller implements Watch {
  readonly #paths: readonly string[]
  readonly #options: WatchOptions
  /** Digest that the caller knows, and a new one that one poll has found. */
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
      // A file may be missing for a moment while it is replaced, so a single failure is not reported.
      this.#candidate = null
      if (++this.#failures > 1) this.#fail(error as Error)
    }
    clearTimeout(hanging)
    if (isChanged && !this.#closed) await this.#options.onChange()
    this.#schedule()
  }

  /** Returns whether the content is new and the last poll found the same. */
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

  /** Returns the SHA-256 of a single file's bytes; for several files, a digest of their digests. */
  async #digest(): Promise<string> {
    const contents = new Map<string, Content>()
    const digests: string[] = []
    for (const path of this.#paths) {
      const stats = await stat(path)
      digests.push(stats.isDirectory() ? await this.#folder(path, contents) : await this.#file(path, stats, contents))
    }
    // Contents of deleted files are dropped.
    this.#contents = contents
    return digests.length === 1 ? digests[0]! : digestOf(digests)
  }

  /** Returns a digest of the files in a folder. Subfolders and hidden names are ignored, such as the folders of Kubernetes' links. */
  async #folder(path: string, contents: Map<string, Content>): Promise<string> {
    const names = (await readdir(path)).filter((name) => !name.startsWith('.')).sort()
    const files: string[] = []
    for (const name of names) {
      const file = join(path, name)
      // A dangling link must not prevent the detection of changes in other files.
      const stats = await stat(file).catch(ignoreMissing)
      if (stats?.isFile()) files.push(name, await this.#file(file, stats, contents))
    }
    return digestOf(files)
  }

  async #file(path: string, stats: { isFile(): boolean }, contents: Map<string, Content>): Promise<string> {
    // Opening a pipe could consume data that is meant for another process.
    if (!stats.isFile()) throw new Error(`${path} is neither a file nor a folder`)
    // Opened before `stat`, since a network file system may report outdated times for a file that is not open.
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
