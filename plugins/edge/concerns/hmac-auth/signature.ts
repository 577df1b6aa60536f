/** The wire format of Kong's hmac-auth: the parameters of `Authorization`, and the text that is signed. */
import type { FastifyRequest } from 'fastify'
import type { SignedFields } from '../../authentication/signed-fields.ts'

export interface HmacSignature {
  readonly username: string
  readonly algorithm: string
  /** Names that the signature covers, as they were sent: they are part of the signed text. */
  readonly names: readonly string[]
  readonly mac: Buffer
}

const scheme = /^hmac(?= |$)/i
/** Most names that a signature may cover. */
const MOST_NAMES = 64

export const isHmac = (authorization: string): boolean => scheme.test(authorization)

/** Reads the value of `Authorization`: `hmac username="…", algorithm="…", headers="…", signature="…"`; null if it is malformed. */
export function readHmac(authorization: string): HmacSignature | null {
  const found = new Map<string, string>()
  let rest = authorization.replace(scheme, '')
  while (rest !== '') {
    const [whole, name, value] = /^[ ,]+([a-z]+)="([^"]*)"/.exec(rest) ?? []
    if (whole === undefined || found.has(name!)) return null
    found.set(name!, value!)
    rest = rest.slice(whole.length).trimEnd()
  }
  const username = found.get('username')
  const algorithm = found.get('algorithm')
  const names = found.get('headers')?.split(' ')
  const signature = found.get('signature')
  if (found.size !== 4 || !username || !algorithm || !names || !signature) return null
  if (names.length > MOST_NAMES || names.includes('')) return null
  const mac = Buffer.from(signature, 'base64')
  return mac.toString('base64') === signature ? { username, algorithm, names, mac } : null
}

/** Returns the signed text; null if a service could read another value of a field than the signed one. */
export function signedText(
  { method, raw }: FastifyRequest,
  fields: SignedFields,
  names: readonly string[]
): string | null {
  const lines: string[] = []
  for (const name of names) {
    const lower = name.toLowerCase()
    if (lower === 'request-line') {
      lines.push(`${method} ${raw.url} HTTP/${raw.httpVersion}`)
      continue
    }
    let values: readonly string[] | null
    if (lower === '@request-target') values = [`${method.toLowerCase()} ${raw.url}`]
    else if (lower === 'host') values = [fields.authority]
    else values = fields.valuesOf(lower)
    if (values === null || values.length > 1) return null
    // Kong signs a header that is absent as its name and a colon.
    lines.push(values.length === 0 ? `${name}:` : `${name}: ${values[0]}`)
  }
  return lines.join('\n')
}

const imfDate = /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/

/**
 * Returns the signed date of a request in milliseconds since 1970: of `X-Date`, or else of `Date`. NaN if none is signed, or it
 * is malformed. A date that is not signed would let a signature be used for ever.
 */
export function signedDate(fields: SignedFields, names: ReadonlySet<string>): number {
  for (const name of ['x-date', 'date']) {
    const [value] = (names.has(name) && fields.valuesOf(name)) || []
    if (value !== undefined) return imfDate.test(value) ? Date.parse(value) : Number.NaN
  }
  return Number.NaN
}
