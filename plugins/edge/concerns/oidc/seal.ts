/** Encryption of sessions and of logins in progress: JWE (RFC 7516), `dir` with A256GCM, by one of several secrets. */
import { hash, hkdfSync } from 'node:crypto'
import { onFirstUse } from '../../../on-first-use.ts'

const jose = onFirstUse<typeof import('jose')>('jose')

interface SealKey {
  readonly kid: string
  readonly key: Uint8Array
}

const header = { alg: 'dir', enc: 'A256GCM' } as const

export class Seal {
  readonly #keys: readonly SealKey[]

  /** `purpose`: a text with which keys are derived. What is sealed for one purpose cannot be opened for another. */
  constructor(secrets: readonly string[], purpose: string) {
    this.#keys = secrets.map((secret) => {
      const key = new Uint8Array(hkdfSync('sha256', secret, '', `jingwei oidc ${purpose}`, 32))
      return { kid: hash('sha256', key, 'base64url').slice(0, 8), key }
    })
  }

  async seal(value: object): Promise<string> {
    const { kid, key } = this.#keys[0]!
    const text = new TextEncoder().encode(JSON.stringify(value))
    return new (jose().CompactEncrypt)(text).setProtectedHeader({ ...header, kid }).encrypt(key)
  }

  /** Returns the value, deeply frozen; null if the text was not sealed by one of the secrets for this purpose. */
  async open(text: string): Promise<object | null> {
    const { alg, enc } = header
    try {
      const { plaintext } = await jose().compactDecrypt(text, ({ kid }) => this.#keyOf(kid), {
        keyManagementAlgorithms: [alg],
        contentEncryptionAlgorithms: [enc]
      })
      return JSON.parse(new TextDecoder().decode(plaintext), (_key, value: unknown) => Object.freeze(value)) as object
    } catch {
      return null
    }
  }

  #keyOf(kid: unknown): Uint8Array {
    const found = this.#keys.find((each) => each.kid === kid)
    if (found === undefined) throw new Error('unknown key')
    return found.key
  }
}
