import type { KeyObject, VerifyKeyObjectInput } from 'node:crypto'
import { constants, verify } from 'node:crypto'

/** A token in compact form (RFC 7515, 7.1): the signed text, and the signature in base64url. */
export interface SignedText {
  readonly input: string
  readonly signature: string
}

/** Returns whether a public key verifies the signature of a token; `algorithm` must fit the key. */
export function isSignedBy(key: KeyObject, algorithm: string, { input, signature }: SignedText): boolean {
  // RFC 7518, 3.4 and 3.5: the salt is as long as the digest.
  const options: Omit<VerifyKeyObjectInput, 'key'> = algorithm.startsWith('ES')
    ? { dsaEncoding: 'ieee-p1363' }
    : algorithm.startsWith('PS')
      ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
      : {}
  const digest = algorithm === 'EdDSA' ? null : `sha${algorithm.slice(2)}`
  return verify(digest, Buffer.from(input), { key, ...options }, Buffer.from(signature, 'base64url'))
}
