/** Digests of request bodies: `Content-Digest` (RFC 9530) and `Digest` (RFC 3230). */
import { hash, timingSafeEqual } from 'node:crypto'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { commaItems } from '../../http-syntax.ts'
import { readFirst } from '../protocol/first-body.ts'
import { hasBody } from '../protocol/request-body.ts'
import type { SignedFields } from './signed-fields.ts'

const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

const algorithms: Readonly<Record<string, string>> = { 'sha-256': 'sha256', 'sha-512': 'sha512' }
const MOST_DIGESTS = 8
const forms = {
  'content-digest': /^([a-z0-9*_.-]+)=:([A-Za-z0-9+/]+={0,2}):$/,
  digest: /^([A-Za-z0-9-]+)=([A-Za-z0-9+/]+={0,2})$/
} as const

type DigestField = keyof typeof forms

type Digests = readonly (readonly [algorithm: string, value: Buffer])[]

/** Returns the digests of a field by known algorithms; null if the field is malformed, or has none. */
function digestsOf(signed: SignedFields, field: DigestField): Digests | null {
  const items = commaItems(signed.valuesOf(field)?.join(',') ?? '', MOST_DIGESTS)
  const found: [string, Buffer][] = []
  for (const item of items ?? []) {
    const [, name, value] = forms[field].exec(item) ?? []
    if (name === undefined) return null
    const algorithm = algorithms[name.toLowerCase()]
    if (algorithm !== undefined) found.push([algorithm, Buffer.from(value!, 'base64')])
  }
  return found.length > 0 ? found : null
}

/**
 * Returns whether the body is that of the digests among the signed fields; a request without a body needs none. Reads the
 * body, so that the service gets no byte of a wrong one. `isSigned` returns whether the signature covers a field.
 * Rejects with JW_BODY_TOO_LARGE or JW_BODY_BUSY.
 */
export function hasSignedBody(
  request: FastifyRequest,
  reply: FastifyReply | null,
  signed: SignedFields,
  isSigned: (field: DigestField) => boolean,
  maxBytes: number
): boolean | Promise<boolean> {
  const fields = (['content-digest', 'digest'] as const).filter(isSigned)
  const digests = fields.map((field) => digestsOf(signed, field))
  if (digests.includes(null)) return false
  const fits = (body: Buffer): boolean =>
    digests.flatMap((list) => list!).every(([algorithm, value]) => isDigest(body, algorithm, value))
  if (!hasBody(request.raw)) return fits(Buffer.alloc(0))
  if (fields.length === 0) return false
  if (reply === null) throw new Error('only a request with a reply has a body')
  const hold = request.server.bodyMemory.holdFor(request, reply)
  return readFirst(request.raw, maxBytes, (bytes) => hold.take(bytes)).then((body) => {
    if (body === null) throw new TooLarge(maxBytes)
    return fits(body)
  })
}

function isDigest(body: Buffer, algorithm: string, value: Buffer): boolean {
  const digest = hash(algorithm, body, 'buffer')
  return digest.length === value.length && timingSafeEqual(digest, value)
}
