/** Finds credentials in a request, in every spelling that a service may accept, and removes them from it. */
import type { FastifyRequest } from 'fastify'
import { canonicalName } from '../../../config/header-names.ts'

/** Returns the indexes of the names of all fields that a service may read as this header; `wanted` is canonical. */
function indexesOf({ raw }: FastifyRequest, wanted: string): number[] {
  const { rawHeaders } = raw
  const found: number[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === wanted.length && canonicalName(name) === wanted) found.push(i)
  }
  return found
}

/** Returns the values of a header, one for each field. Other spellings count if the header itself is there, too. */
export function headerValues(request: FastifyRequest, name: string): string[] {
  // Most requests without the header end here.
  if (request.raw.headers[name.toLowerCase()] === undefined) return []
  const { rawHeaders } = request.raw
  return indexesOf(request, canonicalName(name)).map((index) => rawHeaders[index + 1]!)
}

/** Returns whether a request has more than one `Authorization`. Node shows the first one only. */
export function hasSeveralAuthorizations({ raw: { rawHeaders } }: FastifyRequest): boolean {
  let copies = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.length === 13 && rawHeaders[i]!.toLowerCase() === 'authorization') copies++
  }
  return copies > 1
}

/** Removes a header in all spellings. */
export function removeHeader(request: FastifyRequest, name: string): void {
  for (const index of indexesOf(request, canonicalName(name))) {
    const spelt = request.raw.rawHeaders[index]!.toLowerCase()
    request.removedHeaders ??= new Set()
    request.removedHeaders.add(spelt)
    Reflect.deleteProperty(request.raw.headers, spelt)
  }
}

/** Removes bearer tokens in `Authorization`: a service behind a gateway that verifies tokens may trust them. */
export function removeBearer(request: FastifyRequest): void {
  if (headerValues(request, 'authorization').some((value) => /^bearer\b/i.test(value)))
    removeHeader(request, 'authorization')
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

/** A parameter of a query, as it was sent. */
const nameOf = (part: string) => decoded(part.split('=', 1)[0]!)

function partsOf(url: string): { path: string; parts: string[] } {
  const mark = url.indexOf('?')
  return mark === -1 ? { path: url, parts: [] } : { path: url.slice(0, mark), parts: url.slice(mark + 1).split('&') }
}

/** Returns the values of a query parameter. */
export function queryValues({ raw }: FastifyRequest, name: string): string[] {
  const found = partsOf(raw.url!).parts.filter((part) => nameOf(part) === name)
  return found.map((part) => decoded(part.slice(part.split('=', 1)[0]!.length + 1)))
}

/** Removes a query parameter; the other bytes of the target stay as they are. */
export function removeQuery(request: FastifyRequest, name: string): void {
  const { path, parts } = partsOf(request.raw.url!)
  const kept = parts.filter((part) => nameOf(part) !== name)
  if (kept.length === parts.length) return
  request.raw.url = kept.length === 0 ? path : `${path}?${kept.join('&')}`
  if (typeof request.query === 'object' && request.query !== null) Reflect.deleteProperty(request.query, name)
}

const cookieName = (pair: string) => pair.split('=', 1)[0]!.trim()

/** Returns the values of a cookie. */
export function cookieValues(request: FastifyRequest, name: string): string[] {
  const { rawHeaders } = request.raw
  return indexesOf(request, 'cookie').flatMap((index) => {
    const pairs = rawHeaders[index + 1]!.split(';').filter((pair) => cookieName(pair) === name)
    return pairs.map((pair) => pair.slice(pair.indexOf('=') + 1).trim())
  })
}

/** Removes a cookie; the other bytes of the fields stay as they are. */
export const removeCookie = (request: FastifyRequest, name: string): void =>
  removeCookies(request, (each) => each === name)

/** Removes the cookies with such names. */
export function removeCookies(request: FastifyRequest, isWanted: (name: string) => boolean): void {
  const { rawHeaders, headers } = request.raw
  const indexes = indexesOf(request, 'cookie')
  const isOther = (pair: string) => !isWanted(cookieName(pair))
  if (indexes.every((index) => rawHeaders[index + 1]!.split(';').every(isOther))) return
  const rest = indexes.map((index) => {
    const kept = rawHeaders[index + 1]!.split(';').filter(isOther).join(';').trimStart()
    rawHeaders[index + 1] = kept
    return kept
  })
  const joined = rest.filter((value) => value.trim() !== '').join('; ')
  if (joined === '') removeHeader(request, 'cookie')
  else headers.cookie = joined
}
