import type { SecureContext } from 'node:tls'
import { createSecureContext } from 'node:tls'
import type { CertificateFacts, Pair, PairFiles } from '../../../../config/certificates.ts'
import { PairError, pairOf } from '../../../../config/certificates.ts'
import type { ClientRule } from './client-rules.ts'

/** A certificate with its key. Immutable: changed files make another instance. */
export class Certificate {
  readonly pair: Pair
  /** Contexts by rule for client certificates, since a context includes the authorities of clients. */
  readonly #contexts = new WeakMap<ClientRule, SecureContext>()

  constructor(pair: Pair) {
    this.pair = pair
  }

  get facts(): CertificateFacts {
    return this.pair.facts
  }

  /** Returns the context for handshakes under a rule, made on first use. */
  contextFor(rule: ClientRule): SecureContext {
    let context = this.#contexts.get(rule)
    if (context === undefined) {
      const { cert, key } = this.pair
      context = createSecureContext({ cert, key, ...(rule.ca !== null && { ca: rule.ca }) })
      this.#contexts.set(rule, context)
    }
    return context
  }
}

/** Content of a file, or the reason why it cannot be read. */
export type Content = string | Error

/** A pair of files, and the certificate in use from them. */
export class CertificateEntry {
  readonly files: PairFiles
  certificate: Certificate | null = null
  /** Reason why the newest content is not in use; null if it is. */
  error: string | null = null

  constructor(files: PairFiles) {
    this.files = files
  }

  /** Updates the certificate. If the new content is unusable, the previous certificate stays in use. */
  update(cert: Content, key: Content): 'same' | 'changed' | 'failed' {
    try {
      const [own, secret] = [textOf('cert', cert), textOf('key', key)]
      const { pair } = this.certificate ?? {}
      const isSame = pair?.cert === own && pair.key === secret
      if (!isSame) this.certificate = new Certificate(pairOf(own, secret))
      this.error = null
      return isSame ? 'same' : 'changed'
    } catch (error) {
      return this.fail(error instanceof PairError ? `${this.files[error.part]} ${error.message}` : String(error))
    }
  }

  /** Records a fault. Returns `same` if it is the one that was recorded last. */
  fail(message: string): 'same' | 'failed' {
    if (this.error === message) return 'same'
    this.error = message
    return 'failed'
  }
}

function textOf(part: 'cert' | 'key', content: Content): string {
  if (typeof content === 'string') return content
  throw new PairError(part, `cannot be read: ${content.message}`)
}
