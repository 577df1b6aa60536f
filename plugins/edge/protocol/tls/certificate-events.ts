import type { AuthorityFile } from './authority-file.ts'
import type { CertificateEntry } from './certificate.ts'

/** Receiver of changes of a listener's certificate files. */
export interface CertificateEvents {
  /** Puts changed entries into use. Called before the other methods. */
  apply(): void
  loaded(entry: CertificateEntry): void
  authoritiesLoaded(file: AuthorityFile): void
  /** Reports that the newest content of an entry is unusable. */
  unusable(entry: CertificateEntry): void
  removed(entry: CertificateEntry): void
  /** Reports that a file or folder cannot be read, so that its previous content stays in use. */
  failed(path: string, message: string): void
}
