import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextIteration } from 'node:timers/promises'
import { isPair, MOST_BYTES, pairsAmong, pairsIn, readPem } from '../../../../config/certificates.ts'
import type { Steps } from '../../../time-slices.ts'
import type { Watch } from '../../../watch-files.ts'
import { watchFiles } from '../../../watch-files.ts'
import type { Content } from './certificate.ts'
import { CertificateEntry } from './certificate.ts'
import type { CertificateEvents } from './certificate-events.ts'

/** Number of files above which a folder is not read. */
const MOST_FILES = 20_000
/** Names of files that may belong to a pair. */
const candidate = /^[^.].*\.(?:crt|cer|pem|key)$/

/** The certificates in the files of one folder. */
export class CertificateFolder {
  readonly path: string
  /** True for a subfolder of a configured folder. */
  readonly #isBelow: boolean
  /** Entries by the path of the certificate's file. */
  readonly #entries = new Map<string, CertificateEntry>()
  /** Watch of the folder; null while it is not watched. */
  #watch: Watch | null = null

  /** The folder is not read before `watch`. */
  constructor(path: string, isBelow: boolean) {
    this.path = path
    this.#isBelow = isBelow
  }

  /** Reads a folder. Throws if the folder cannot be read; unusable pairs are errors of their entries. */
  static *read(path: string, isBelow: boolean): Steps<CertificateFolder> {
    const folder = new CertificateFolder(path, isBelow)
    for (const files of pairsIn(path)) {
      yield
      const entry = new CertificateEntry(files)
      entry.update(contentOf(files.cert), contentOf(files.key))
      folder.#entries.set(files.cert, entry)
    }
    return folder
  }

  get entries(): CertificateEntry[] {
    return [...this.#entries.values()]
  }

  /** Watches the folder until `unwatch`. `intervalMs` returns the time until the next check. */
  watch(intervalMs: () => number, events: CertificateEvents): void {
    this.#watch = watchFiles([this.path], {
      get intervalMs() {
        return intervalMs()
      },
      onChange: () => this.#read(events),
      onError: (error) => this.#fail(error, events)
    })
  }

  #fail(error: NodeJS.ErrnoException, events: CertificateEvents): void {
    if (this.#watch === null) return
    // A subfolder is removed once two checks of its parent have not found it.
    if (this.#isBelow && error.code === 'ENOENT') return
    events.failed(this.path, error.message)
  }

  async #read(events: CertificateEvents): Promise<void> {
    const { path } = this
    let contents: Map<string, Content>
    try {
      contents = await contentsOf(path)
    } catch (error) {
      this.#fail(error as Error, events)
      return
    }
    if (this.#watch === null) return
    const holdsBoth = (name: string) => isPair(String(contents.get(name)))
    const found = new Set<string>()
    const results: (() => void)[] = []
    for (const { cert, key } of pairsAmong([...contents.keys()], holdsBoth)) {
      const files = { cert: join(path, cert), key: join(path, key) }
      found.add(files.cert)
      let entry = this.#entries.get(files.cert)
      if (entry?.files.key !== files.key) {
        const before = entry
        entry = new CertificateEntry(files)
        entry.certificate = before?.certificate ?? null
        this.#entries.set(files.cert, entry)
      }
      const result = entry.update(contents.get(cert)!, contents.get(key)!)
      if (result === 'same') continue
      const taken = entry
      results.push(() => (result === 'changed' ? events.loaded(taken) : events.unusable(taken)))
      // Parsing takes a millisecond, and a folder may have a thousand new files.
      await nextIteration()
      if (this.#watch === null) return
    }
    for (const [cert, entry] of this.#entries) {
      if (found.has(cert)) continue
      if (contents.has(cert.slice(path.length + 1)) && entry.certificate !== null) {
        if (entry.fail(`${entry.files.key} does not exist any more`) === 'failed')
          results.push(() => events.unusable(entry))
      } else {
        this.#entries.delete(cert)
        results.push(() => events.removed(entry))
      }
    }
    if (results.length === 0) return
    events.apply()
    for (const report of results) report()
  }

  unwatch(): void {
    this.#watch?.close()
    this.#watch = null
  }
}

export function contentOf(file: string): Content {
  try {
    return readPem(file)
  } catch (error) {
    return error as Error
  }
}

/** Returns the contents of the files that may belong to a pair. */
async function contentsOf(folder: string): Promise<Map<string, Content>> {
  const names = (await readdir(folder)).filter((name) => candidate.test(name))
  if (names.length > MOST_FILES) throw new Error(`there are more than ${MOST_FILES} files`)
  const contents = new Map<string, Content>()
  for (const name of names.sort()) contents.set(name, await read(join(folder, name)))
  return contents
}

/** Reads a file as `readPem` does, without blocking. */
export async function read(file: string): Promise<Content> {
  try {
    const stats = await stat(file)
    if (!stats.isFile()) return new Error(`${file} is not a file`)
    if (stats.size > MOST_BYTES) return new Error(`${file} is larger than 1 MB`)
    return await readFile(file, 'latin1')
  } catch (error) {
    return error as Error
  }
}
