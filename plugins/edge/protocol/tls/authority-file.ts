import type { CertificateFacts } from '../../../../config/certificates.ts'
import { firstToExpire } from '../../../../config/certificates.ts'
import type { Content } from './certificate.ts'

/** A file with the authorities that sign client certificates, and its content in use. */
export class AuthorityFile {
  readonly path: string
  /** Content in use, in PEM. */
  content: string
  /** Facts about the authority that expires first. */
  facts: CertificateFacts
  /** Reason why the newest content is not in use; null if it is. */
  error: string | null = null

  /** Throws if the content has no certificate, since every client would be refused. */
  constructor(path: string, content: string) {
    this.path = path
    this.content = content
    this.facts = firstToExpire(content)
  }

  /** Updates the content. If the new content is unusable, the previous one stays in use. */
  update(content: Content): 'same' | 'changed' | 'failed' {
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
