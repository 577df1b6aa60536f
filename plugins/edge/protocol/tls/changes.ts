import type { AuthorityFile } from './authority-file.ts'
import type { CertificateEntry } from './certificate.ts'

/** Receives changes of the files of a listener's certificates. */
export interface Changes {
  /** Entries have changed: makes them those in use. Called before the others. */
  settle(): void
  read(entry: CertificateEntry): void
  authoritiesRead(file: AuthorityFile): void
  /** The newest content of an entry cannot be used. */
  unusable(entry: CertificateEntry): void
  removed(entry: CertificateEntry): void
  /** A file or folder cannot be read. What was read of it before stays in use. */
  failed(path: string, message: string): void
}
