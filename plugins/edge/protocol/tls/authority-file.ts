import type { CertificateFacts } from '../../../../config/certificates.ts'
import { firstToExpire } from '../../../../config/certificates.ts'
import type { Content } from './certificate.ts'

/** A file with the authorities that sign certificates of clients, and what was last read of it. */
export class AuthorityFile {
  readonly path: string
  /** In PEM. */
  content: string
  /** Facts about the authority that expires first. */
  facts: CertificateFacts
  /** The reason why the newest content is not in use, or null. */
  error: string | null = null

  /** Throws if the content holds no certificate: every client would be refused. */
  constructor(path: string, content: string) {
    this.path = path
    this.content = content
    this.facts = firstToExpire(content)
  }

  /** Takes new content. What cannot be used leaves the authorities as they were. */
  take(content: Content): 'same' | 'changed' | 'failed' {
    try {
      if (typeof content !== 'string') throw content
      const isSame = content === this.content
      if (!isSame) this.facts = firstToExpire(content)
      this.content = content
      this.error = null
      return isSame ? 'same' : 'changed'
    } catch (error) {
      const { message } = error as Error
      const isKnown = this.error === message
      this.error = message
      return isKnown ? 'same' : 'failed'
    }
  }
}
