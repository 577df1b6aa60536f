import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { foldersOf, readPem } from '../../../../config/certificates.ts'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import type { Steps } from '../../../time-slices.ts'
import type { Watch } from '../../../watch-files.ts'
import { watchFile, watchFiles } from '../../../watch-files.ts'
import { AuthorityFile } from './authority-file.ts'
import { CertificateEntry } from './certificate.ts'
import type { CertificateEvents } from './certificate-events.ts'
import { CertificateFolder, contentOf, read } from './certificate-folder.ts'
import { authorityFiles } from './client-rules.ts'

/** Time between two checks of the files. Only tests change it. */
export const tlsFilesTiming = { intervalMs: 2000 }

/** Files in folders above which all folders are checked less often, in proportion. */
const FILES_PER_INTERVAL = 200

/** Limit of folders below one of `folders`. */
const MOST_FOLDERS = 10_000

/** Certificate files of a listener: named pairs, folders with pairs, authorities of clients. Changed files are read again. */
export class CertificateFiles {
  readonly #named: CertificateEntry[] = []
  /** For each of `folders`: the folder itself and its subfolders, by path. */
  readonly #folders: Map<string, CertificateFolder>[] = []
  readonly #authorities = new Map<string, AuthorityFile>()
  /** Number of entries at the last check of the folders. */
  #count = 0
  #watches: Watch[] = []
  readonly #timers = new Set<NodeJS.Timeout>()
  /** Receiver of changes; null while the files are not watched. */
  #events: CertificateEvents | null = null

  /** Reads the files. Throws if a named pair is unusable; unusable pairs in folders are allowed. */
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
      if (entry.update(contentOf(files.cert), contentOf(files.key)) === 'failed')
        throw new Error(`${at}: ${entry.error}`)
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

  /** The entries in the order of the configuration: named pairs come first. */
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

  /** Returns the time until the next check of a folder. Random, so that a thousand folders are not checked at once. */
  readonly #intervalMs = (): number => {
    const average = tlsFilesTiming.intervalMs * Math.max(1, (2 * this.#count) / FILES_PER_INTERVAL)
    return average * (0.75 + Math.random() / 2)
  }

  /** Watches the files until `unwatch`. */
  watch(events: CertificateEvents): void {
    this.#events = events
    this.#count = this.entries.length
    for (const entry of this.#named) this.#watchEntry(entry, events)
    for (const file of this.authorities) this.#watchAuthority(file, events)
    for (const folders of this.#folders) {
      for (const folder of folders.values()) folder.watch(this.#intervalMs, events)
      this.#watchFolders(folders, events)
    }
  }

  #watchEntry(entry: CertificateEntry, events: CertificateEvents): void {
    const { cert, key } = entry.files
    const take = async () => {
      const contents = [await read(cert), await read(key)] as const
      if (this.#events !== events) return
      const result = entry.update(...contents)
      if (result === 'changed') {
        events.apply()
        events.loaded(entry)
      } else if (result === 'failed') events.unusable(entry)
    }
    const paths = cert === key ? [cert] : [cert, key]
    const { intervalMs } = tlsFilesTiming
    // On an error, such as a deleted file, `update` reports which file.
    this.#watches.push(watchFiles(paths, { intervalMs, onChange: take, onError: () => void take() }))
  }

  #watchAuthority(file: AuthorityFile, events: CertificateEvents): void {
    const take = async () => {
      const content = await read(file.path)
      if (this.#events !== events) return
      const result = file.update(content)
      if (result === 'changed') {
        events.apply()
        events.authoritiesLoaded(file)
      } else if (result === 'failed') events.failed(file.path, file.error!)
    }
    const { intervalMs } = tlsFilesTiming
    this.#watches.push(watchFile(file.path, { intervalMs, onChange: take, onError: () => void take() }))
  }

  /** Watches for subfolders that are added or removed. A folder is removed when two checks in a row have not found it. */
  #watchFolders(folders: Map<string, CertificateFolder>, events: CertificateEvents): void {
    const [top] = folders.keys()
    const missing = new Set<string>()
    let isFailing = false
    const look = async () => {
      try {
        const found = await foldersBelow(top!)
        isFailing = false
        if (this.#events !== events) return
        for (const [path, folder] of folders) {
          if (path === top || found.has(path)) missing.delete(path)
          else if (missing.has(path)) {
            missing.delete(path)
            folder.unwatch()
            folders.delete(path)
            events.apply()
            for (const entry of folder.entries) events.removed(entry)
          } else missing.add(path)
        }
        for (const path of found) if (!folders.has(path)) this.#addFolder(path, folders, events)
        this.#count = this.entries.length
      } catch (error) {
        if (!isFailing && this.#events === events) events.failed(top!, (error as Error).message)
        isFailing = true
      }
      schedule()
    }
    const schedule = () => {
      if (this.#events !== events) return
      const timer = setTimeout(() => {
        this.#timers.delete(timer)
        void look()
      }, this.#intervalMs()).unref()
      this.#timers.add(timer)
    }
    schedule()
  }

  /** Adds a folder without its files, which are read once two checks in a row have found the same. */
  #addFolder(path: string, folders: Map<string, CertificateFolder>, events: CertificateEvents): void {
    const folder = new CertificateFolder(path, true)
    folders.set(path, folder)
    folder.watch(this.#intervalMs, events)
  }

  unwatch(): void {
    this.#events = null
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
