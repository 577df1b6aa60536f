/** The signature base of HTTP Message Signatures (RFC 9421, 2): the text that is signed. */
import type { FastifyRequest } from 'fastify'
import type { Dictionary, InnerList, Item, Parameters } from 'structured-headers'
import { onFirstUse } from '../../../on-first-use.ts'
import { SignedFields } from '../../authentication/signed-fields.ts'
import type { Peers } from '../../protocol/peers.ts'

export const structured = onFirstUse<typeof import('structured-headers')>('structured-headers')

const MOST_COMPONENTS = 64

/** The signature base of one signature. */
export interface Base {
  /** Names of the components that are covered by their whole value. */
  readonly covered: ReadonlySet<string>
  readonly text: string
}

/** Returns a name for equal components: their parameters may have another order. */
const identityOf = ([name, parameters]: Item): string => JSON.stringify([name, [...parameters].map(String).sort()])

/** Returns a text as WHATWG's `application/x-www-form-urlencoded` percent-encode set encodes it. */
const encoded = (text: string): string =>
  encodeURIComponent(text.toWellFormed()).replace(
    /[!'()~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`
  )

/**
 * A request whose signatures are verified. Query, fields and dictionaries are parsed once, so that the time is linear in the
 * size of the request, whatever components its signatures name.
 */
export class SignedMessage {
  readonly request: FastifyRequest
  readonly fields: SignedFields
  readonly #peers: Peers
  readonly #path: string
  readonly #query: string
  #origin: { readonly scheme: string; readonly authority: string } | undefined
  /** Values of query parameters; null for one that is repeated. */
  #parameters: Map<string, string | null> | undefined
  readonly #dictionaries = new Map<string, Dictionary>()

  constructor(request: FastifyRequest, peers: Peers) {
    this.request = request
    this.fields = new SignedFields(request)
    this.#peers = peers
    const url = request.raw.url!
    const at = url.indexOf('?')
    this.#path = at === -1 ? url : url.slice(0, at)
    this.#query = at === -1 ? '' : url.slice(at)
  }

  /**
   * Returns the signature base for a member of `Signature-Input`. Null if a component is missing, unknown, repeated, or not a
   * component of requests, such as `@status` and those with the parameters `req` and `tr`; or if a service could read another
   * value than the signed one.
   */
  base(input: InnerList): Base | null {
    const { serializeItem, serializeInnerList } = structured()
    const [items] = input
    if (items.length > MOST_COMPONENTS || new Set(items.map(identityOf)).size < items.length) return null
    const covered = new Set<string>()
    const lines: string[] = []
    for (const item of items) {
      const [name, parameters] = item
      if (typeof name !== 'string' || name !== name.toLowerCase()) return null
      const value = name.startsWith('@') ? this.#derived(name, parameters) : this.#field(name, parameters)
      if (value === null) return null
      if (!parameters.has('key') && !parameters.has('name')) covered.add(name)
      lines.push(`${serializeItem(item)}: ${value}`)
    }
    lines.push(`"@signature-params": ${serializeInnerList(input)}`)
    return { covered, text: lines.join('\n') }
  }

  /** Returns the value of a derived component; null if a request has none of this name. */
  #derived(name: string, parameters: Parameters): string | null {
    const { raw, method, originalUrl } = this.request
    const url = raw.url!
    const parameter = parameters.get('name')
    if (name === '@query-param') {
      return parameters.size === 1 && typeof parameter === 'string' ? this.#queryParameter(parameter) : null
    }
    if (parameters.size > 0) return null
    this.#origin ??= this.#originOf()
    const { scheme, authority } = this.#origin
    switch (name) {
      case '@method':
        return method
      case '@target-uri':
        return `${scheme}://${authority}${url}`
      case '@authority':
        return authority
      case '@scheme':
        return scheme
      case '@request-target':
        // An absolute URL, as it was sent.
        return originalUrl.startsWith('/') ? url : originalUrl
      case '@path':
        return this.#path
      case '@query':
        return this.#query === '' ? '?' : this.#query
      default:
        return null
    }
  }

  /** Returns what the client has signed as scheme and authority: those of the proxy in front, if it is trusted to say. */
  #originOf(): { scheme: string; authority: string } {
    const { raw } = this.request
    const trusted = this.#peers.trustedHeadersOf(raw)?.names
    const forwarded = (name: string): string | undefined => {
      const values = trusted?.has(name) ? this.fields.valuesOf(name) : null
      return values?.length === 1 && /^[^\s,]+$/.test(values[0]!) ? values[0]!.toLowerCase() : undefined
    }
    const own = (raw.socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
    const scheme = forwarded('x-forwarded-proto') ?? own
    const authority = forwarded('x-forwarded-host') ?? this.fields.authority.toLowerCase()
    return { scheme, authority: authority.replace(scheme === 'https' ? /:443$/ : /:80$/, '') }
  }

  /** Returns the value of the only query parameter of a name; null if there is none, or more than one. */
  #queryParameter(wanted: string): string | null {
    if (this.#parameters === undefined) {
      this.#parameters = new Map()
      for (const [given, value] of new URLSearchParams(this.#query)) {
        const name = encoded(given)
        this.#parameters.set(name, this.#parameters.has(name) ? null : encoded(value))
      }
    }
    return this.#parameters.get(wanted) ?? null
  }

  /** Returns the value of a field by the parameters `sf`, `key` and `bs`; null if it has none, or a service could read another one. */
  #field(name: string, parameters: Parameters): string | null {
    const values = this.fields.valuesOf(name)
    if (values === null || values.length === 0 || parameters.size > 1) return null
    // The service gets the cookies of HTTP/2 in one field (RFC 9113, 8.2.3).
    const isSplit = name === 'cookie' && this.request.raw.httpVersionMajor > 1
    const trimmed = values.map((value) => value.trim())
    const joined = trimmed.join(isSplit ? '; ' : ', ')
    const [[kind, argument]] = [...parameters, [undefined, undefined] as const] as const
    if (kind === undefined) return joined
    if (kind === 'bs' && argument === true) {
      return trimmed.map((value) => `:${Buffer.from(value, 'latin1').toString('base64')}:`).join(', ')
    }
    try {
      if (kind === 'key' && typeof argument === 'string') return this.#member(name, joined, argument)
      return kind === 'sf' && argument === true ? strictly(joined) : null
    } catch {
      // Not a structured field.
      return null
    }
  }

  /** Returns a member of a field that is a dictionary. */
  #member(name: string, value: string, key: string): string | null {
    const { parseDictionary, isInnerList, serializeInnerList, serializeItem } = structured()
    const dictionary = this.#dictionaries.get(name) ?? parseDictionary(value)
    this.#dictionaries.set(name, dictionary)
    const member = dictionary.get(key)
    if (member === undefined) return null
    return isInnerList(member) ? serializeInnerList(member) : serializeItem(member)
  }
}

/** Returns a structured field as RFC 9651 serializes it. */
function strictly(value: string): string {
  const { parseDictionary, parseList, serializeDictionary, serializeList } = structured()
  // An item is a list of one member.
  try {
    return serializeList(parseList(value))
  } catch {
    return serializeDictionary(parseDictionary(value))
  }
}

const byTarget = ['@target-uri', '@request-target']
const coveredBy: Readonly<Record<string, readonly string[]>> = {
  '@authority': ['@target-uri', 'host'],
  '@scheme': ['@target-uri'],
  '@path': byTarget,
  '@query': byTarget
}

/** Returns whether a signature covers a component, by itself or with another one. */
export function isCovered(request: FastifyRequest, covered: ReadonlySet<string>, name: string): boolean {
  if (covered.has(name) || coveredBy[name]?.some((other) => covered.has(other))) return true
  return name === '@query' && !request.raw.url!.includes('?')
}
