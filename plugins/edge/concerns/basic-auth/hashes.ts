/** Hashes of passwords: argon2id and scrypt in PHC format, by Node's own crypto, and the form of bcrypt. */
import crypto from 'node:crypto'

const MB = 1024 * 1024

/** Bounds of memory and time: a hash is computed for each guess. */
const MOST_BYTES = 128 * MB

interface Stored {
  readonly salt: Buffer
  readonly digest: Buffer
  readonly derive: (password: string, salt: Buffer, length: number) => Promise<Buffer>
}

const form =
  /^\$(argon2id\$v=19|scrypt)\$([a-z]+=\d{1,7}(?:,[a-z]+=\d{1,7}){2})\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{20,128})$/

/** `htpasswd` writes 2y, other programs 2a or 2b. `2x` marks hashes of an implementation with an error. */
const bcryptForm = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}([./A-Za-z0-9])[./A-Za-z0-9]{30}([./A-Za-z0-9])$/

/** Bounds of the logarithm of bcrypt's rounds; each step doubles the time. */
const [leastCost, mostCost] = [4, 14]

export const hashPattern = `${form.source}|${bcryptForm.source}`

export const isBcrypt = (hash: string): boolean => hash.startsWith('$2')

type Callback = (error: Error | null, derived: Buffer) => void

const derived = (run: (done: Callback) => void) =>
  new Promise<Buffer>((resolve, reject) => run((error, buffer) => (error === null ? resolve(buffer) : reject(error))))

const scrypt = (N: number, r: number, p: number): Stored['derive'] => {
  const options = { N, r, p, maxmem: MOST_BYTES + 16 * MB }
  return (password, salt, length) => derived((done) => crypto.scrypt(password, salt, length, options, done))
}

/** Node has it from 24.7 on. */
const hasArgon2 = (): boolean => typeof crypto.argon2 === 'function'

const argon2id = (memory: number, passes: number, parallelism: number): Stored['derive'] => {
  return (message, nonce, tagLength) =>
    derived((done) => crypto.argon2('argon2id', { message, nonce, parallelism, tagLength, memory, passes }, done))
}

function read(hash: string) {
  const [, kind = '', list = '', salt = '', digest = ''] = form.exec(hash) ?? []
  const parameters = Object.fromEntries(list.split(',').map((pair) => [pair.split('=')[0], Number(pair.split('=')[1])]))
  const { ln = 0, r = 0, p = 0, m = 0, t = 0 } = parameters as Record<string, number | undefined>
  return { isScrypt: kind === 'scrypt', ln, r, p, m, t, salt, digest }
}

/** Returns the fault of a hash; null if it can be used. */
export function hashFault(hash: string): string | null {
  if (isBcrypt(hash)) return bcryptFault(hash)
  const { isScrypt, ln, r, p, m, t } = read(hash)
  if (isScrypt) {
    if (ln < 1 || ln > 20 || r < 1 || p < 1 || p > 16) return 'expected scrypt with ln=1 to 20, r, and p=1 to 16'
    return 128 * 2 ** ln * r > MOST_BYTES ? 'needs more than 128 MB for each password' : null
  }
  if (p < 1 || p > 16 || m < 8 * p || t < 1 || t > 10) return 'expected argon2id with m, t=1 to 10, and p=1 to 16'
  if (m * 1024 > MOST_BYTES) return 'needs more than 128 MB for each password'
  return hasArgon2() ? null : 'argon2id needs Node 24.7 or later; use scrypt'
}

function bcryptFault(hash: string): string | null {
  const [, cost = '', endOfSalt = '', end = ''] = bcryptForm.exec(hash) ?? []
  if (Number(cost) < leastCost || Number(cost) > mostCost) {
    return `expected bcrypt with a cost of ${leastCost} to ${mostCost}; each step doubles the time for a password`
  }
  // 128 bits of salt and 184 bits of digest, in digits of 6 bits: the last digits have few values.
  const isWhole = '.Oeu'.includes(endOfSalt) && '.CGKOSWaeimquy26'.includes(end)
  return isWhole ? null : 'is not a hash of bcrypt: it is mistyped or cut, so no password would have it'
}

function parse(hash: string): Stored {
  const { isScrypt, ln, r, p, m, t, salt, digest } = read(hash)
  const derive = isScrypt ? scrypt(2 ** ln, r, p) : argon2id(m, t, p)
  return { salt: Buffer.from(salt, 'base64'), digest: Buffer.from(digest, 'base64'), derive }
}

/** Returns whether a password has this hash, which is not one of bcrypt. */
export async function isPasswordOf(hash: string, password: string): Promise<boolean> {
  const { salt, digest, derive } = parse(hash)
  return crypto.timingSafeEqual(await derive(password, salt, digest.length), digest)
}

const unpadded = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '')

/** Returns the hash of a new password, with the parameters that OWASP recommends. */
export async function hashOf(password: string): Promise<string> {
  const salt = crypto.randomBytes(16)
  const [head, derive] = hasArgon2()
    ? (['$argon2id$v=19$m=19456,t=2,p=1', argon2id(19_456, 2, 1)] as const)
    : (['$scrypt$ln=15,r=8,p=3', scrypt(2 ** 15, 8, 3)] as const)
  return `${head}$${unpadded(salt)}$${unpadded(await derive(password, salt, 32))}`
}
