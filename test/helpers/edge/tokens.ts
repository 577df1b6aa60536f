// Tokens of every shape, valid and invalid, signed by hand.
import type { KeyObject } from 'node:crypto'
import { constants, createHmac, createSecretKey, generateKeyPairSync, sign } from 'node:crypto'

export const keys = {
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  otherRsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  smallRsa: generateKeyPairSync('rsa', { modulusLength: 1024 }),
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  p521: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  k256: generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
  ed25519: generateKeyPairSync('ed25519')
}

export const secret = 'a secret that is long enough for this'

export const pem = (pair: { publicKey: KeyObject }): string =>
  pair.publicKey.export({ type: 'spki', format: 'pem' }).toString()

export const seconds = (): number => Math.floor(Date.now() / 1000)

const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

export function token(
  claims: unknown,
  key: string | { privateKey: KeyObject } = secret,
  header: Record<string, unknown> = { alg: 'HS256' }
): string {
  const input = `${encode({ typ: 'JWT', ...header })}.${encode(claims)}`
  return `${input}.${signature(input, String(header.alg), key)}`
}

/** Claims as a well-behaved issuer makes them. */
export const claims = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  sub: 'ann',
  iat: seconds(),
  exp: seconds() + 300,
  ...more
})

function signature(input: string, alg: string, key: string | { privateKey: KeyObject }): string {
  if (alg === 'none') return ''
  const hash = `sha${alg.slice(2)}`
  if (alg.startsWith('HS')) {
    const shared = createSecretKey(Buffer.from(key as string))
    return createHmac(hash, shared).update(input).digest('base64url')
  }
  const { privateKey } = key as { privateKey: KeyObject }
  const data = Buffer.from(input)
  if (alg === 'EdDSA') return sign(null, data, privateKey).toString('base64url')
  if (alg.startsWith('ES'))
    return sign(hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')
  const padding = alg.startsWith('PS') ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING
  const saltLength = constants.RSA_PSS_SALTLEN_DIGEST
  return sign(hash, data, { key: privateKey, padding, ...(alg.startsWith('PS') && { saltLength }) }).toString(
    'base64url'
  )
}
