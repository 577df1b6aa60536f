/** Reading and validation of certificates and private keys in PEM files. */
import type { KeyObject } from 'node:crypto'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { alternativeNames } from '../plugins/alternative-names.ts'
import { hostKey } from './host-name.ts'

/** Maximum size of a PEM file; a larger file is not read. */
export const MOST_BYTES = 1024 * 1024

/** The files of a certificate and its private key; the same file may hold both. */
export interface PairFiles {
  readonly cert: string
  readonly key: string
}

/** A certificate chain and its key, in PEM, and facts about the first certificate. */
export interface Pair {
  readonly cert: string
  readonly key: string
  readonly facts: CertificateFacts
}

export interface CertificateFacts {
  /** DNS names and addresses of its subjectAltName, in the form of `hostKey`; wildcards begin with `*.`. */
  readonly names: readonly string[]
  readonly subject: string
  readonly issuer: string
  readonly serialNumber: string
  /** SHA-256. */
  readonly fingerprint: string
  /** `RSA 2048`, `EC prime256v1`. */
  readonly keyType: string
  /** Seconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
}

/** A fault of one of the two files. */
export class PairError extends Error {
  readonly part: 'cert' | 'key'

  constructor(part: 'cert' | 'key', message: string) {
    super(message)
    this.part = part
  }
}

const certificateFile = /^(.+)\.(crt|cer|pem)$/

/**
 * Returns the pairs among the file names of a folder. A .pem file without a key file counts only if it contains its key
 * (`holdsBoth`). Hidden names are ignored, such as the targets of Kubernetes' links.
 */
export function pairsAmong(names: readonly string[], holdsBoth: (name: string) => boolean): PairFiles[] {
  const all = new Set(names.filter((name) => !name.startsWith('.')))
  const used = new Set<string>()
  const pairs: PairFiles[] = []
  for (const name of [...all].sort()) {
    const [, stem, ending] = certificateFile.exec(name) ?? []
    if (stem === undefined || stem.endsWith('-key')) continue
    const own = [`${stem}.key`, `${name}.key`, `${stem}-key.pem`]
    // Names that certbot uses.
    if (name === 'fullchain.pem') own.push('privkey.pem')
    const key = own.find((file) => all.has(file) && !used.has(file))
    if (key !== undefined) {
      used.add(key)
      pairs.push({ cert: name, key })
    } else if (ending === 'pem' && holdsBoth(name)) pairs.push({ cert: name, key: name })
  }
  return pairs
}

/** Returns a folder and its direct subfolders; certbot has one per certificate. Throws if the folder cannot be read. */
export function foldersOf(folder: string): string[] {
  const below = readdirSync(folder).filter((name) => !name.startsWith('.'))
  const folders = below.map((name) => join(folder, name)).filter(isFolder)
  return [folder, ...folders.sort()]
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}

/** Returns the pairs in one folder, with paths. Throws if it cannot be read. */
export function pairsIn(folder: string): PairFiles[] {
  const path = (name: string) => join(folder, name)
  const holdsBoth = (name: string) => {
    try {
      return isPair(readPem(path(name)))
    } catch {
      return false
    }
  }
  return pairsAmong(readdirSync(folder), holdsBoth).map(({ cert, key }) => ({ cert: path(cert), key: path(key) }))
}

/** Returns whether a text holds both a certificate and a private key. */
export const isPair = (pem: string) => pem.includes('CERTIFICATE-----') && isPrivateKey(pem)
const isPrivateKey = (pem: string) => pem.includes('PRIVATE KEY-----')

/** Reads a PEM file. Throws if it is not a regular file, or larger than 1 MB. */
export function readPem(file: string): string {
  const stats = statSync(file)
  if (!stats.isFile()) throw new Error(`${file} is not a file`)
  if (stats.size > MOST_BYTES) throw new Error(`${file} is larger than 1 MB`)
  return readFileSync(file, 'latin1')
}

/** Reads a certificate and its key. Throws a `PairError` that names the part that cannot be used, and the reason. */
export function readPair(files: PairFiles): Pair {
  const cert = contentOf('cert', files.cert)
  return pairOf(cert, files.key === files.cert ? cert : contentOf('key', files.key))
}

function contentOf(part: 'cert' | 'key', file: string): string {
  try {
    return readPem(file)
  } catch (error) {
    throw new PairError(part, `cannot be read: ${(error as Error).message}`)
  }
}

/** Validates a pair from two texts. Throws a `PairError` that names the part that cannot be used, and the reason. */
export function pairOf(cert: string, key: string): Pair {
  const chain = certificatesIn(cert)
  const own = chain[0]!
  const privateKey = privateKeyIn(key)
  const keyType = keyTypeOf(privateKey)
  if (!own.checkPrivateKey(privateKey)) {
    const other = chain.some((certificate) => certificate.checkPrivateKey(privateKey))
    throw new PairError(
      'key',
      other
        ? 'is the key of another certificate of the chain: the certificate of this key must come first'
        : 'is not the key of the certificate'
    )
  }
  try {
    createSecureContext({ cert, key })
  } catch (error) {
    throw new PairError('cert', `cannot be used: ${(error as Error).message}`)
  }
  return { cert, key, facts: factsOf(own, keyType) }
}

/** Returns facts about the certificate in a text that expires first. Throws a `PairError` if there is none. */
export function firstToExpire(pem: string): CertificateFacts {
  const all = certificatesIn(pem).map((certificate) => factsOf(certificate, keyTypeOf(certificate.publicKey)))
  return all.reduce((first, each) => (each.notAfter < first.notAfter ? each : first))
}

const block = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g

/** Returns the certificates of a PEM text, at least one. The error distinguishes an empty from a half-written file. */
export function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(block) ?? []
  const begun = pem.match(/-----BEGIN [^-]*CERTIFICATE-----/g) ?? []
  if (begun.length === 0) throw new PairError('cert', 'contains no certificate')
  if (blocks.length < begun.length) throw new PairError('cert', 'ends in the middle of a certificate')
  try {
    return blocks.map((text) => new X509Certificate(text))
  } catch (error) {
    throw new PairError('cert', `contains a malformed certificate: ${(error as Error).message}`)
  }
}

function privateKeyIn(pem: string): KeyObject {
  if (!isPrivateKey(pem)) throw new PairError('key', 'contains no private key')
  try {
    return createPrivateKey(pem)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isEncrypted = code === 'ERR_MISSING_PASSPHRASE' || pem.includes('ENCRYPTED')
    throw new PairError('key', isEncrypted ? 'is encrypted: remove its passphrase' : `cannot be read: ${message}`)
  }
}

/** Returns the type of a key. Throws a `PairError` if servers cannot use the type for TLS handshakes. */
function keyTypeOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string {
  const { modulusLength, namedCurve } = asymmetricKeyDetails ?? {}
  switch (asymmetricKeyType) {
    case 'rsa':
    case 'rsa-pss':
      if (modulusLength! < 2048)
        throw new PairError('key', `is an RSA key of ${modulusLength} bits; at least 2048 are needed`)
      return `RSA ${modulusLength}`
    case 'ec':
      return `EC ${namedCurve}`
    case 'ed25519':
    case 'ed448':
      return asymmetricKeyType
    default:
      throw new PairError('key', `is a key of type ${asymmetricKeyType}; TLS needs one of RSA, EC or Ed25519`)
  }
}

function factsOf(certificate: X509Certificate, keyType: string): CertificateFacts {
  const { subject, issuer, serialNumber, fingerprint256, validFrom, validTo, subjectAltName } = certificate
  return {
    names: namesIn(subjectAltName),
    subject: oneLine(subject),
    issuer: oneLine(issuer),
    serialNumber,
    fingerprint: fingerprint256,
    keyType,
    notBefore: Date.parse(validFrom) / 1000,
    notAfter: Date.parse(validTo) / 1000
  }
}

/** Joins the lines of a distinguished name, which Node separates by line feeds. */
export const oneLine = (name: string | undefined) => (name ?? '').replaceAll('\n', ', ')

/** Pattern of a DNS name; a wildcard must be the whole first label (RFC 6125, 6.4.3). */
const dnsName = /^(?:\*\.)?[\w-]+(?:\.[\w-]+)*\.?$/

function namesIn(subjectAltName: string | undefined): string[] {
  const { DNS = [], 'IP Address': addresses = [] } = alternativeNames(subjectAltName)
  const names = DNS.filter((name) => dnsName.test(name)).map(hostKey)
  const hosts = addresses.map((address) => (isIPv4(address) ? address : hostKey(`[${address}]`)))
  return [...new Set([...names, ...hosts])]
}

/** Returns a warning about a usable certificate: expired, not yet valid, without names; null if there is none. */
export function certificateWarning({ names, notBefore, notAfter }: CertificateFacts, nowMs: number): string | null {
  const day = (seconds: number) => new Date(seconds * 1000).toISOString()
  if (nowMs >= notAfter * 1000) return `the certificate expired at ${day(notAfter)}`
  if (nowMs < notBefore * 1000) return `the certificate is not valid before ${day(notBefore)}`
  return names.length === 0
    ? 'the certificate has no names (subjectAltName), so it can only be the default certificate'
    : null
}
