/** Keys and algorithms of HTTP Message Signatures (RFC 9421, 3.3). */
import type { KeyObject } from 'node:crypto'
import { constants, createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto'

export const signatureAlgorithms = [
  'ed25519',
  'ecdsa-p256-sha256',
  'ecdsa-p384-sha384',
  'rsa-pss-sha512',
  'rsa-v1_5-sha256',
  'hmac-sha256'
] as const

type Algorithm = (typeof signatureAlgorithms)[number]

/** A key in the configuration. */
export interface SigningKey {
  readonly algorithm: Algorithm
  /** Public key in PEM form. */
  readonly key?: string
  /** Shared secret in base64. */
  readonly secret?: string
}

interface PublicKeyAlgorithm {
  readonly digest: string | null
  readonly types: readonly string[]
  readonly curve?: string
  readonly options: object
}

const ofPublicKeys: Readonly<Record<Exclude<Algorithm, 'hmac-sha256'>, PublicKeyAlgorithm>> = {
  ed25519: { digest: null, types: ['ed25519'], options: {} },
  'ecdsa-p256-sha256': {
    digest: 'sha256',
    types: ['ec'],
    curve: 'prime256v1',
    options: { dsaEncoding: 'ieee-p1363' }
  },
  'ecdsa-p384-sha384': { digest: 'sha384', types: ['ec'], curve: 'secp384r1', options: { dsaEncoding: 'ieee-p1363' } },
  'rsa-pss-sha512': {
    digest: 'sha512',
    types: ['rsa', 'rsa-pss'],
    // RFC 9421 has a salt of 64 bytes; some signers make a longer one, which is no weaker.
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO }
  },
  'rsa-v1_5-sha256': { digest: 'sha256', types: ['rsa'], options: { padding: constants.RSA_PKCS1_PADDING } }
}

const SMALLEST_MODULUS = 2048

/** Returns the fault of a key, with the place below the key; null if it fits its algorithm. */
export function keyFault({
  algorithm,
  key,
  secret
}: SigningKey): { readonly at: readonly string[]; readonly fault: string } | null {
  const isShared = algorithm === 'hmac-sha256'
  const [needed, other] = isShared ? ['secret', key] : ['key', secret]
  if (other !== undefined) {
    return { at: [isShared ? 'key' : 'secret'], fault: `${algorithm} needs a ${needed} instead` }
  }
  if (isShared) return secret === undefined ? { at: [], fault: `${algorithm} needs a secret` } : null
  if (key === undefined) return { at: [], fault: `${algorithm} needs a key` }
  if (key.includes('PRIVATE KEY')) return { at: ['key'], fault: 'expected a public key, found a private one' }
  const { types, curve } = ofPublicKeys[algorithm]
  let object: KeyObject
  try {
    object = createPublicKey(key)
  } catch {
    return { at: ['key'], fault: 'expected a public key in PEM form' }
  }
  const { asymmetricKeyType: type = '', asymmetricKeyDetails: { namedCurve, modulusLength } = {} } = object
  if (!types.includes(type) || namedCurve !== curve) {
    return { at: ['key'], fault: `${algorithm} does not fit a key of type ${namedCurve ?? type}` }
  }
  if (modulusLength !== undefined && modulusLength < SMALLEST_MODULUS) {
    return { at: ['key'], fault: `expected a modulus of at least ${SMALLEST_MODULUS} bits, found ${modulusLength}` }
  }
  return null
}

const objects = new WeakMap<SigningKey, KeyObject>()

/** Returns whether a signature of a text is right. */
export function isSignedBy(stored: SigningKey, text: string, signature: Buffer): boolean {
  // Node has header values as Latin-1: each character is a byte that was sent.
  const bytes = Buffer.from(text, 'latin1')
  if (stored.algorithm === 'hmac-sha256') {
    const mac = createHmac('sha256', Buffer.from(stored.secret!, 'base64')).update(bytes).digest()
    return mac.length === signature.length && timingSafeEqual(mac, signature)
  }
  const key = objects.get(stored) ?? createPublicKey(stored.key!)
  objects.set(stored, key)
  const { digest, options } = ofPublicKeys[stored.algorithm]
  return verify(digest, bytes, { key, ...options }, signature)
}
