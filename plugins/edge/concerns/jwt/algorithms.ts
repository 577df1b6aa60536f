/** Algorithms of tokens (RFC 7518, 3.1) that each kind of key can verify. */
import type { KeyObject } from 'node:crypto'
import { algorithms } from './options.ts'

/** Kinds of keys that can verify tokens, for messages. */
export const supportedKeys = 'RSA of 2048 bits or more, EC on P-256, P-384 or P-521, or Ed25519'

const familyOf = (algorithm: string) => algorithm.slice(0, 2)

/** Algorithms of a shared secret. */
export const symmetric: readonly string[] = algorithms.filter((algorithm) => familyOf(algorithm) === 'HS')
/** Algorithms of public keys. */
export const asymmetric: readonly string[] = algorithms.filter((algorithm) => familyOf(algorithm) !== 'HS')

const rsa = asymmetric.filter((algorithm) => ['RS', 'PS'].includes(familyOf(algorithm)))
const curves: Record<string, string> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }

/** Returns the algorithms that a public key can verify; none if its kind is not supported or it is too weak. */
export function algorithmsOf(key: KeyObject): readonly string[] {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      // RFC 7518, section 3.3
      return (key.asymmetricKeyDetails?.modulusLength ?? 0) < 2048 ? [] : rsa
    case 'ec': {
      const algorithm = curves[key.asymmetricKeyDetails?.namedCurve ?? '']
      return algorithm === undefined ? [] : [algorithm]
    }
    case 'ed25519':
      return ['EdDSA']
    default:
      return []
  }
}

/** Returns algorithms for a message, a complete family as `RS*`. */
export function inWords(some: readonly string[]): string {
  const isWhole = (family: string) =>
    family !== 'Ed' && algorithms.every((each) => familyOf(each) !== family || some.includes(each))
  const names = some.map((each) => (isWhole(familyOf(each)) ? `${familyOf(each)}*` : each))
  return [...new Set(names)].join(' or ')
}
