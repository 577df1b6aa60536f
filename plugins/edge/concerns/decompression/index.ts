/** Decompresses request bodies for services that cannot: by `Content-Encoding`, with limits of size and ratio. */
import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { Names, orOff, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { removeHeader } from '../../authentication/credentials.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import { MemoryBudget } from '../../memory-budget.ts'
import { clientAddressOf, networkOf } from '../../protocol/client-address.ts'
import { codingsField } from '../../protocol/content-coding.ts'
import { hasBody } from '../../protocol/request-body.ts'
import { codings, codingsOf, memoryOf, mostMemory, mostMemoryOfClient } from './decoders.ts'
import { Busy, DecompressedBody, Share } from './decompressed-body.ts'

const Decompression = Type.Object(
  {
    maxSize: Size('Largest body after it was decompressed; larger ones get 413.', { default: '10mb' }),
    maxRatio: Type.Integer({
      minimum: 2,
      maximum: 2000,
      default: 100,
      description:
        'Largest ratio of the decompressed to the compressed bytes, for bodies above 1 MB; others get 413. Real data rarely exceeds 20.'
    }),
    unknown: Names(['pass', 'refuse'], {
      default: 'pass',
      description:
        'Bodies with other encodings than gzip, br, zstd and deflate, or with more than three: `pass` leaves them to the service, `refuse` responds 415.'
    })
  },
  { ...strict, description: 'Decompresses request bodies before the service gets them.' }
)

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    decompression?: Static<typeof Decompression> | false
  }
}

const Unknown = createError('JW_UNKNOWN_ENCODING', 'The Content-Encoding of the body is not supported', 415)

/** Headers that are true only for the bytes of the client. */
const ofClientBytes = ['content-encoding', 'content-length', 'content-digest', 'repr-digest', 'digest', 'content-md5']

const accepted = codings.join(', ')

export default edgeConcern({
  name: 'decompression',
  options: orOff(Decompression),
  aliases: Object.fromEntries(
    ['decompress', 'decompressor', 'requestDecompression', 'gunzip', 'inflate'].map((name) => [
      name,
      'write decompression: {}'
    ])
  ),
  innerAliases: { 'maxInflateRatio|ratio': 'write "maxRatio"', 'maxBytes|limit|maxBodySize': 'write "maxSize"' },
  protects: false,
  apiFacts: ({ unknown }) => ({
    ofBodies: true,
    responses: {
      400: 'The body is not encoded as its Content-Encoding says.',
      413: 'The request body is too large once it is decompressed.',
      ...(unknown !== 'pass' && { 415: 'The Content-Encoding of the body is not supported.' })
    },
    extensions: { 'x-request-encodings': accepted.split(', ') }
  }),
  explain({ unknown }, { headers }) {
    const found = codingsOf(headers['content-encoding'] ?? '')
    if (found?.length === 0) return 'passes the body on: it has no Content-Encoding'
    if (found !== null) return `decompresses the body: ${found.join(', ')}`
    return unknown === 'pass'
      ? 'passes the body on: its encoding is unknown'
      : 'refuses the body: its encoding is unknown'
  },
  async plugin(fastify, { stores, meter }) {
    decorateUpstreamHeaders(fastify)
    const memory = stores.claim(
      'jingwei.decompression-memory',
      null,
      () => new MemoryBudget(mostMemory, mostMemoryOfClient)
    )
    meter.gauge({
      name: 'jingwei_edge_decompression_memory_bytes',
      help: 'Memory that is reserved for request bodies that are decompressed now.',
      collect: (set) => set({}, memory.used)
    })
    return ({ maxSize, maxRatio, unknown }, _route, shadow, refused) => ({
      preParsing(request, reply, payload, done) {
        const field = codingsField(request)
        if (field === '' || !hasBody(request.raw)) return done(null, payload)
        const found = codingsOf(field)
        if (found?.length === 0 || (found === null && unknown === 'pass')) return done(null, payload)
        if (found === null) {
          if (shadow !== null) {
            shadow(request, 'JW_UNKNOWN_ENCODING')
            return done(null, payload)
          }
          // RFC 9110, 15.5.16.
          reply.header('accept-encoding', accepted)
          return done(new Unknown())
        }
        const share = new Share(memory, networkOf(clientAddressOf(request)))
        if (!share.take(found.reduce((sum, coding) => sum + memoryOf[coding], 0))) return done(new Busy())
        const exceeded = (reason: string): boolean => {
          ;(shadow ?? refused)(request, 'JW_BODY_TOO_LARGE', reason)
          if (shadow === null) request.refusalReason = reason
          return shadow === null
        }
        relabel(request)
        const body = new DecompressedBody(payload as Readable, found, { maxSize, maxRatio, exceeded }, share)
        // A request that is refused later never reads its body.
        reply.raw.once('close', () => body.destroy())
        done(null, body)
      }
    })
  }
})

/** Removes the fields that describe the encoded body, for the service and for Fastify's parsers. */
function relabel(request: FastifyRequest): void {
  const { raw } = request
  for (const name of ofClientBytes) removeHeader(request, name)
  // The body still has a length, which is not known: RFC 9112, 6.1. HTTP/2 frames it by itself.
  if (raw.httpVersionMajor === 1) raw.headers['transfer-encoding'] = 'chunked'
}
