import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextIteration } from 'node:timers/promises'
import { isPair, MOST_BYTES, pairsAmong, pairsIn, readPem } from '../../../../config/certificates.ts'
import type { Steps } from '../../../time-slices.ts'
import type { Watch } from '../../../watch-files.ts'
import { watchFiles } from '../../../watch-files.ts'
import type { Content } from './certificate.ts'
import { CertificateEntry } from './certificate.ts'
import type { Changes } from './changes.ts'

/** Files of a folder beyond which it is not read. */
const MOST_FILES = 20_000
/** Names of files that may be one of a pair. */
const candidate = /^[^.].*\.(?:crt|cer|pem|key)$/

/** The certificates in the files of one folder. */
export class CertificateFolder {
  readonly path: string
  /** True for a folder below one that the configuration names. */
  readonly #isBelow: boolean
  /** By the path of the certificate's file. */
  readonly #entries = new Map<string, CertificateEntry>()
  /** Null while nothing looks for changes. */
  #watch: Watch | null = null

  /** Nothing is read of it before it is watched. */
  constructor(path: string, isBelow: boolean) {
    this.path = path
    this.#isBelow = isBelow
  }

  /** Reads a folder. Throws if that is not possible; entries have their own errors. */
  static *read(path: string, isBelow: boolean): Steps<CertificateFolder> {
    const folder = new CertificateFolder(path, isBelow)
    for (const files of pairsIn(path)) {
      yield
      const entry = new CertificateEntry(files)
      entry.take(contentOf(files.cert), contentOf(files.key))
      folder.#entries.set(files.cert, entry)
    }
    return folder
  }

  get entries(): CertificateEntry[] {
    return [...this.#entries.values()]
  }

  /** Looks for changes until `unwatch`. `intervalMs` says how long to wait for the next look. */
  watch(intervalMs: () => number, changes: Changes): void {
    this.#watch = watchFiles([this.path], {
      get intervalMs() {
        return intervalMs()
      },
      onChange: () => this.#read(changes),
      onError: (error) => this.#fail(error, changes)
    })
  }

  #fail(error: NodeJS.ErrnoException, changes: Changes): void {
    if (this.#watch === null) return
    // One below another folder is removed once that one has not had it for two looks.
    if (this.#isBelow && error.code === 'ENOENT') return
    changes.failed(this.path, error.message)
  }

  async #read(changes: Changes): Promise<void> {
    const { path } = this
    let contents: Map<string, Content>
    try {
      contents = await contentsOf(path)
    } catch (error) {
      this.#fail(error as Error, changes)
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
      const result = entry.take(contents.get(cert)!, contents.get(key)!)
      if (result === 'same') continue
      const taken = entry
      results.push(() => (result === 'changed' ? changes.read(taken) : changes.unusable(taken)))
      // Parsing takes a millisecond, and a folder may have a thousand new files.
      await nextIteration()
      if (this.#watch === null) return
    }
    for (const [cert, entry] of this.#entries) {
      if (found.has(cert)) continue
      if (contents.has(cert.slice(path.length + 1)) && entry.certificate !== null) {
        if (entry.fail(`${entry.files.key} is gone`) === 'failed') results.push(() => changes.unusable(entry))
      } else {
        this.#entries.delete(cert)
        results.push(() => changes.removed(entry))
      }
    }
    if (results.length === 0) return
    changes.settle()
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

/** Returns the contents of the files that may be one of a pair. */
async function contentsOf(folder: string): Promise<Map<string, Content>> {
  const names = (await readdir(folder)).filter((name) => candidate.test(name))
  if (names.length > MOST_FILES) throw new Error(`there are more than ${MOST_FILES} files`)
  const contents = new Map<string, Content>()
  for (const name of names.sort()) contents.set(name, await read(join(folder, name)))
  return contents
}

/** As `readPem`, without blocking. */
export async function read(file: string): Promise<Content> {
  try {
    const stats = await stat(file)
    if (!stats.isFile()) return new Error(`${file} is no file`)
    if (stats.size > MOST_BYTES) return new Error(`${file} is larger than 1 MB`)
    return await readFile(file, 'latin1')
  } catch (error) {
    return error as Error
  }
}
