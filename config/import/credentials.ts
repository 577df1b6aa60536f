/** Hashes of the credentials that another gateway keeps as plain text. */
import { createHash, randomBytes, scryptSync } from 'node:crypto'

/** Returns the hash of an API key, as `jingwei hash-key` prints it. */
export const keyHash = (key: string): string => `sha256:${createHash('sha256').update(key).digest('hex')}`

/** Cost of scrypt, and bytes of memory that it may use, as of `jingwei hash-password`. */
const scrypt = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 1024 * 1024 }

const unpadded = (bytes: Buffer) => bytes.toString('base64').replace(/=+$/, '')

/** Returns the hash of a password. */
export function passwordHash(password: string): string {
  const salt = randomBytes(16)
  const digest = scryptSync(password.normalize('NFC'), salt, 32, scrypt)
  return `$scrypt$ln=15,r=8,p=3$${unpadded(salt)}$${unpadded(digest)}`
}

/** Returns whether a value comes from a variable, so that it is not known here. */
export const isVariable = (text: string): boolean => /\$\{/.test(text)
