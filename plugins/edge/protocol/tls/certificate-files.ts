import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { foldersOf, readPem } from '../../../../config/certificates.ts'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import type { Steps } from '../../../time-slices.ts'
import type { Watch } from '../../../watch-files.ts'
import { watchFile, watchFiles } from '../../../watch-files.ts'
import { AuthorityFile } from './authority-file.ts'
import { CertificateEntry } from './certificate.ts'
import { CertificateFolder, contentOf, read } from './certificate-folder.ts'
import type { Changes } from './changes.ts'
import { authorityFiles } from './client-rules.ts'

/** Time between two looks at the files. Changed by tests only. */
export const tlsFilesTiming = { intervalMs: 2000 }

/** Files in folders beyond which all folders are looked at more rarely, in proportion. */
const FILES_PER_INTERVAL = 200

/** Most folders below one of `folders`. */
const MOST_FOLDERS = 10_000

/** The files of a listener: pairs by name, folders with pairs, authorities of clients. They are read again when they change. */
export class CertificateFiles {
  readonly #named: CertificateEntry[] = []
  /** Of each of `folders`, itself and those right below it, by path. */
  readonly #folders: Map<string, CertificateFolder>[] = []
  readonly #authorities = new Map<string, AuthorityFile>()
  /** Number of entries, as of the last look for folders. */
  #count = 0
  #watches: Watch[] = []
  readonly #timers = new Set<NodeJS.Timeout>()
  /** Null while nothing looks for changes. */
  #changes: Changes | null = null

  /** Reads the files. Throws if those that are named cannot be used; in folders there may be such. */
  static *read(tls: TlsOptions): Steps<CertificateFiles> {
    const files = new CertificateFiles()
    yield* files.#read(tls)
    return files
  }

  *#read({ cert, key, certificates, folders, ...tls }: TlsOptions): Steps<void> {
    const own = cert === undefined || key === undefined ? [] : [{ at: 'listen.tls', files: { cert, key } }]
    const more = certificates.map((files, index) => ({ at: `listen.tls.certificates[${index}]`, files }))
    for (const { at, files } of [...own, ...more]) {
      yield
      const entry = new CertificateEntry(files)
      if (entry.take(contentOf(files.cert), contentOf(files.key)) === 'failed') throw new Error(`${at}: ${entry.error}`)
      this.#named.push(entry)
    }
    for (const [index, folder] of folders.entries()) {
      try {
        const found = new Map<string, CertificateFolder>()
        for (const path of foldersOf(folder)) found.set(path, yield* CertificateFolder.read(path, path !== folder))
        this.#folders.push(found)
      } catch (error) {
        throw new Error(`listen.tls.folders[${index}]: cannot be read: ${(error as Error).message}`, { cause: error })
      }
    }
    for (const file of authorityFiles(tls)) {
      try {
        this.#authorities.set(file, new AuthorityFile(file, readPem(file)))
      } catch (error) {
        throw new Error(`listen.tls: ${file} ${(error as Error).message}`, { cause: error })
      }
    }
  }

  /** The entries in the order of the configuration: those that are named come first. */
  get entries(): CertificateEntry[] {
    const inFolders = this.#folders.flatMap((folders) => [...folders.values()].flatMap(({ entries }) => entries))
    return [...this.#named, ...inFolders]
  }

  authority(file: string): string {
    return this.#authorities.get(file)!.content
  }

  /** The files with the authorities of clients. */
  get authorities(): AuthorityFile[] {
    return [...this.#authorities.values()]
  }

  /** Time until the next look at a folder: at random, so that a thousand folders are not looked at in one moment. */
  readonly #intervalMs = (): number => {
    const average = tlsFilesTiming.intervalMs * Math.max(1, (2 * this.#count) / FILES_PER_INTERVAL)
    return average * (0.75 + Math.random() / 2)
  }

  /** Looks for changes until `unwatch`. */
  watch(changes: Changes): void {
    this.#changes = changes
    this.#count = this.entries.length
    for (const entry of this.#named) this.#watchEntry(entry, changes)
    for (const file of this.authorities) this.#watchAuthority(file, changes)
    for (const folders of this.#folders) {
      for (const folder of folders.values()) folder.watch(this.#intervalMs, changes)
      this.#watchFolders(folders, changes)
    }
  }

  #watchEntry(entry: CertificateEntry, changes: Changes): void {
    const { cert, key } = entry.files
    const take = async () => {
      const contents = [await read(cert), await read(key)] as const
      if (this.#changes !== changes) return
      const result = entry.take(...contents)
      if (result === 'changed') {
        changes.settle()
        changes.read(entry)
      } else if (result === 'failed') changes.unusable(entry)
    }
    const paths = cert === key ? [cert] : [cert, key]
    const { intervalMs } = tlsFilesTiming
    // A file that is gone for good: `take` says which one.
    this.#watches.push(watchFiles(paths, { intervalMs, onChange: take, onError: () => void take() }))
  }

  #watchAuthority(file: AuthorityFile, changes: Changes): void {
    const take = async () => {
      const content = await read(file.path)
      if (this.#changes !== changes) return
      const result = file.take(content)
      if (result === 'changed') {
        changes.settle()
        changes.authoritiesRead(file)
      } else if (result === 'failed') changes.failed(file.path, file.error!)
    }
    const { intervalMs } = tlsFilesTiming
    this.#watches.push(watchFile(file.path, { intervalMs, onChange: take, onError: () => void take() }))
  }

  /** Looks for folders that come and go below one of `folders`. One is gone when two looks in a row have not found it. */
  #watchFolders(folders: Map<string, CertificateFolder>, changes: Changes): void {
    const [top] = folders.keys()
    const missing = new Set<string>()
    let isFailing = false
    const look = async () => {
      try {
        const found = await foldersBelow(top!)
        isFailing = false
        if (this.#changes !== changes) return
        for (const [path, folder] of folders) {
          if (path === top || found.has(path)) missing.delete(path)
          else if (missing.has(path)) {
            missing.delete(path)
            folder.unwatch()
            folders.delete(path)
            changes.settle()
            for (const entry of folder.entries) changes.removed(entry)
          } else missing.add(path)
        }
        for (const path of found) if (!folders.has(path)) this.#addFolder(path, folders, changes)
        this.#count = this.entries.length
      } catch (error) {
        if (!isFailing && this.#changes === changes) changes.failed(top!, (error as Error).message)
        isFailing = true
      }
      schedule()
    }
    const schedule = () => {
      if (this.#changes !== changes) return
      const timer = setTimeout(() => {
        this.#timers.delete(timer)
        void look()
      }, this.#intervalMs()).unref()
      this.#timers.add(timer)
    }
    schedule()
  }

  /** Adds a folder without its files: these are read once two looks in a row find the same. */
  #addFolder(path: string, folders: Map<string, CertificateFolder>, changes: Changes): void {
    const folder = new CertificateFolder(path, true)
    folders.set(path, folder)
    folder.watch(this.#intervalMs, changes)
  }

  unwatch(): void {
    this.#changes = null
    for (const watch of this.#watches) watch.close()
    this.#watches = []
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
    for (const folder of this.#folders.flatMap((folders) => [...folders.values()])) folder.unwatch()
  }
}

async function foldersBelow(top: string): Promise<Set<string>> {
  const names = (await readdir(top)).filter((name) => !name.startsWith('.'))
  const folders = new Set<string>()
  for (const name of names) {
    const path = join(top, name)
    const stats = await stat(path).catch(() => null)
    if (stats?.isDirectory()) folders.add(path)
    if (folders.size > MOST_FOLDERS) throw new Error(`there are more than ${MOST_FOLDERS} folders in it`)
  }
  return folders
}
