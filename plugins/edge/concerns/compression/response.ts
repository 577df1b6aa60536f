/** Decides which responses are compressed, and changes their headers. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { weak } from '../../protocol/entity-tags.ts'
import type { Encoding } from './accept-encoding.ts'
import { Negotiator } from './accept-encoding.ts'
import type { Options } from './options.ts'
import { typeTest } from './options.ts'

/** A response before it is compressed. `header` gets a name in lower case. */
export interface Subject {
  readonly status: number
  header(name: string): string | readonly string[] | number | undefined
}

/** `isEligible`: clients may get the response with or without an encoding, so it needs `Vary`. */
export interface Verdict {
  readonly isEligible: boolean
  readonly encoding: Encoding | null
}

export const untouched: Verdict = { isEligible: false, encoding: null }
const asItIs: Verdict = { isEligible: true, encoding: null }

/** Statuses without a body, and those of a part of one. */
const without: ReadonlySet<number> = new Set([204, 205, 206, 304])

/** Headers by which clients check the bytes. A signature may also cover others that would change. */
const checks = ['content-digest', 'repr-digest', 'digest', 'content-md5', 'signature-input'] as const

/** Announced trailers with a digest. */
const digestTrailer = /(?:^|[\s,])(?:content-digest|repr-digest|digest|content-md5|signature-input)(?:$|[\s,])/i

/** Returns whether a `Cache-Control` has a directive. */
const hasDirective = (value: unknown, directive: RegExp) => value !== undefined && directive.test(String(value))
const noTransform = /(?:^|[\s,])no-transform(?:$|[\s,;])/i
const isShared = /(?:^|,)\s*(?:public|s-maxage\s*=\s*\d+)\s*(?:$|,)/i
const isPersonal = /(?:^|[\s,])(?:private|no-store)(?:$|[\s,=])/i

/** Returns whether a response is the same for everybody, by its `Cache-Control`. A cookie is for one client. */
function isPublic(subject: Subject): boolean {
  const caching = subject.header('cache-control')
  if (caching === undefined || subject.header('set-cookie') !== undefined) return false
  // Text in quotes is no directive.
  const plain = String(caching).replace(/"[^"]*"?/g, '""')
  return isShared.test(plain) && !isPersonal.test(String(caching))
}

/** Facts about the callers of a route, by its settings. */
export interface Callers {
  /** Id of the consumer of requests without credentials. */
  readonly anonymous: string | undefined
  /** True if a server or a function decides who may pass: it may know a client by any part of the request. */
  readonly areDecidedUpon: boolean
}

/**
 * Returns whether a request has credentials. The fields are looked up as the client has sent them, since concerns remove
 * credentials that they have verified.
 */
function isAuthenticated(request: FastifyRequest, { anonymous, areDecidedUpon }: Callers): boolean {
  if (areDecidedUpon) return true
  const { consumer, clientCertificate, user } = request as FastifyRequest & { user?: unknown }
  if (consumer !== null && consumer.id !== anonymous) return true
  if ((clientCertificate ?? user ?? null) !== null) return true
  const { rawHeaders } = request.raw
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!
    if (name.length === 6 && name.toLowerCase() === 'cookie') return true
    if (name.length === 13 && name.toLowerCase() === 'authorization') return true
  }
  return false
}

const essenceOf = (type: string): string => type.split(';', 1)[0]!.trim().toLowerCase()

const isEncoded = (coding: unknown): boolean => coding !== undefined && String(coding).toLowerCase() !== 'identity'

/** Returns whether clients may check the bytes of the response, which would be others. */
function isChecked(subject: Subject): boolean {
  for (const name of checks) if (subject.header(name) !== undefined) return true
  const trailer = subject.header('trailer')
  return trailer !== undefined && digestTrailer.test(String(trailer))
}

export class Rules {
  readonly #isCompressible: (type: string) => boolean
  readonly #negotiator: Negotiator
  readonly #minSize: number
  readonly #authenticated: boolean
  readonly #callers: Callers

  constructor({ types, encodings, minSize, authenticated }: Options, callers: Callers) {
    this.#isCompressible = typeTest(types)
    this.#negotiator = new Negotiator(encodings)
    this.#minSize = minSize
    this.#authenticated = authenticated
    this.#callers = callers
  }

  /** Returns whether the response that a 304 stands for varies by `Accept-Encoding`, as far as its headers show that. */
  variesUnchanged({ header }: Pick<Subject, 'header'>): boolean {
    const type = header('content-type')
    const isEligible = type === undefined || (typeof type === 'string' && this.#isCompressible(essenceOf(type)))
    return isEligible && !isEncoded(header('content-encoding')) && !hasDirective(header('cache-control'), noTransform)
  }

  judge(request: FastifyRequest, subject: Subject): Verdict {
    const { status } = subject
    if (status < 200 || without.has(status) || request.upgrade !== null) return untouched
    const type = subject.header('content-type')
    if (typeof type !== 'string' || !this.#isCompressible(essenceOf(type))) return untouched
    if (isEncoded(subject.header('content-encoding'))) return untouched
    if (subject.header('content-range') !== undefined || isChecked(subject)) return untouched
    if (hasDirective(subject.header('cache-control'), noTransform)) return untouched
    const { headers } = request.raw
    const { encoding, needsEncoding } = this.#negotiator.choose(headers['accept-encoding'] as string | undefined)
    const length = subject.header('content-length')
    const isSmall = length !== undefined && Number(length) < (needsEncoding ? 1 : this.#minSize)
    if (isSmall) return untouched
    if (encoding === null || hasDirective(headers['cache-control'], noTransform)) return asItIs
    if (!this.#authenticated && !isPublic(subject) && isAuthenticated(request, this.#callers)) return asItIs
    return { isEligible: true, encoding }
  }
}

/** Returns a `Vary` that names `Accept-Encoding`. */
export function varyOf(before: string | readonly string[] | undefined): string | string[] {
  if (before === undefined) return 'Accept-Encoding'
  const lines = [before].flat()
  const hasIt = lines.some((line) => /(?:^|[\s,])(?:accept-encoding|\*)(?:$|[\s,])/i.test(line))
  if (hasIt) return typeof before === 'string' ? before : lines
  return typeof before === 'string' ? `${before}, Accept-Encoding` : [...lines, 'Accept-Encoding']
}

/** Returns the headers of a service's response for its encoded body. */
export function encodedHeaders(given: IncomingHttpHeaders, encoding: Encoding): IncomingHttpHeaders {
  const { 'content-length': _length, 'accept-ranges': _ranges, etag, ...rest } = given
  const tag = typeof etag === 'string' ? { etag: weak(etag) } : {}
  return { ...rest, ...tag, 'content-encoding': encoding, vary: varyOf(given.vary) as string }
}
