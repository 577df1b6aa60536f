/** The private key by which the gateway signs requests for tokens (private_key_jwt, RFC 7523). */
import type { KeyObject, webcrypto } from 'node:crypto'
import { createPrivateKey } from 'node:crypto'
import { readSecret } from './secret.ts'

type Algorithm = 'RS256' | 'RS384' | 'RS512' | 'PS256' | 'PS384' | 'PS512' | 'ES256' | 'ES384' | 'ES512'

const curves: Readonly<Record<string, readonly [algorithm: Algorithm, curve: string]>> = {
  prime256v1: ['ES256', 'P-256'],
  secp384r1: ['ES384', 'P-384'],
  secp521r1: ['ES512', 'P-521']
}

/** Shortest RSA key that the algorithms allow, in bits (RFC 7518, 3.3). */
const leastBits = 2048

/** Reads a key, and checks that it can sign by the algorithm. Throws an error without the text of the key. */
export function readSigningKey(file: string, wanted: Algorithm | undefined): { key: KeyObject; algorithm: Algorithm } {
  let key: KeyObject
  try {
    key = createPrivateKey(readSecret(file))
  } catch (error) {
    throw new Error(`${file} has no private key that can be read: ${(error as Error).message}`)
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key
  if (type === 'rsa') {
    if ((details.modulusLength ?? 0) < leastBits)
      throw new Error(`the RSA key in ${file} has less than ${leastBits} bits`)
    if (wanted?.startsWith('ES')) throw new Error(`the RSA key in ${file} cannot sign by ${wanted}`)
    return { key, algorithm: wanted ?? 'RS256' }
  }
  const [algorithm] = (type === 'ec' && curves[details.namedCurve ?? '']) || []
  if (algorithm === undefined)
    throw new Error(`${file} has no RSA key, and no EC key of the curve P-256, P-384 or P-521`)
  if (wanted !== undefined && wanted !== algorithm)
    throw new Error(`the key in ${file} signs by ${algorithm}, not ${wanted}`)
  return { key, algorithm }
}

/** Returns the key in the form of Web Crypto. */
export function cryptoKey(file: string, wanted: Algorithm | undefined): webcrypto.CryptoKey {
  const { key, algorithm } = readSigningKey(file, wanted)
  const hash = `SHA-${algorithm.slice(2)}`
  const name = { RS: 'RSASSA-PKCS1-v1_5', PS: 'RSA-PSS', ES: 'ECDSA' }[algorithm.slice(0, 2)]!
  const curve = Object.values(curves).find(([each]) => each === algorithm)?.[1]
  const parameters = curve === undefined ? { name, hash } : { name, namedCurve: curve }
  return key.toCryptoKey(parameters, false, ['sign'])
}
