/** Names in client certificates, in one spelling each. */
import type { X509Certificate } from 'node:crypto'
import { alternativeNames } from '../../../alternative-names.ts'

/** Kinds of names by which certificates are found, the most specific first. */
export const kinds = ['fingerprint', 'uri', 'dns', 'email', 'subject', 'cn'] as const
export type Kind = (typeof kinds)[number]

/** The names of a certificate, canonical. */
export interface CertificateNames {
  readonly of: Readonly<Record<Kind, readonly string[]>>
  readonly issuer: string
}

/** Splits a text at a separator that is not escaped. */
function split(text: string, separator: string): string[] {
  const parts = ['']
  for (const [piece] of text.matchAll(/\\.|[^\\]|\\$/gsu)) {
    if (piece === separator) parts.push('')
    else parts[parts.length - 1] += piece
  }
  return parts
}

/** Removes the escapes of RFC 4514, 2.4: `\,`, and `\C3\A9` for bytes of UTF-8. */
function unescaped(value: string): string {
  return value.replace(/(?:\\[0-9A-Fa-f]{2})+|\\(.)/gsu, (text, character?: string) =>
    character === undefined ? Buffer.from(text.replaceAll('\\', ''), 'hex').toString() : character
  )
}

type Attribute = readonly [type: string, value: string]

/** Returns the attributes of one relative distinguished name; null if it is none. Several are joined by `+`. */
function attributesOf(text: string): Attribute[] | null {
  const pairs = split(text, '+').map((each) => /^\s*([A-Za-z][\w-]*|\d+(?:\.\d+)+)\s*=\s*(.*?)\s*$/s.exec(each))
  if (pairs.some((pair) => pair === null)) return null
  return pairs.map((pair): Attribute => [pair![1]!.toLowerCase(), unescaped(pair![2]!)])
}

const canonicalDn = (names: readonly (readonly Attribute[])[]) => JSON.stringify(names)

/**
 * Returns the canonical spellings of a written distinguished name, `CN=alice, O=Example`: one for each order, since programs
 * show the same name from its first attribute or from its last. Empty if the text is no such name.
 */
export function writtenDn(text: string): readonly string[] {
  const names = split(text, ',').map(attributesOf)
  if (names.some((name) => name === null)) return []
  const sound = names as Attribute[][]
  return [...new Set([canonicalDn(sound), canonicalDn(sound.toReversed())])]
}

/** Returns the relative distinguished names in Node's text of a name, one a line. */
const partsOf = (name: string | undefined): Attribute[][] =>
  (name ?? '').split('\n').flatMap((line) => {
    const attributes = line === '' ? null : attributesOf(line)
    return attributes === null ? [] : [attributes]
  })

/** Returns a name of a kind in its canonical spelling; a subject is written by `writtenDn`. */
export function canonical(kind: Exclude<Kind, 'subject'>, text: string): string {
  if (kind === 'fingerprint') return text.replaceAll(':', '').toLowerCase()
  if (kind === 'dns') return text.replace(/\.$/, '').toLowerCase()
  // The domain alone is the same in any case.
  if (kind === 'email') return text.replace(/[^@]*$/, (domain) => domain.toLowerCase())
  return text
}

export function namesOf({ subject, issuer, subjectAltName, fingerprint256 }: X509Certificate): CertificateNames {
  const { URI = [], DNS = [], email = [] } = alternativeNames(subjectAltName)
  const parts = partsOf(subject)
  const cn = parts.flatMap((attributes) => attributes.flatMap(([type, value]) => (type === 'cn' ? [value] : [])))
  return {
    of: {
      fingerprint: [canonical('fingerprint', fingerprint256)],
      uri: URI,
      dns: DNS.map((name) => canonical('dns', name)),
      email: email.map((name) => canonical('email', name)),
      subject: parts.length === 0 ? [] : [canonicalDn(parts)],
      cn
    },
    issuer: canonicalDn(partsOf(issuer))
  }
}
