/**
 * Compresses responses by `Accept-Encoding`. On the raw path the bridge passes bodies through the compressor. Elsewhere an
 * `onSend` hook does: on plugins' own routes, on composed routes, and where plugins have `onSend` hooks, which run before it.
 */
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, onRequestHookHandler, onSendHookHandler } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import type { ConfigurationMeter } from '../../../meter.ts'
import { edgeRouteOf } from '../../attach.ts'
import type { EncodeResponse, EncoderSink } from '../../bridge/body-encoder.ts'
import { markRawForm } from '../../bridge/body-encoder.ts'
import { streamOf } from '../../bridge/service-body.ts'
import { edgeConcern } from '../../concern.ts'
import { MemoryBudget } from '../../memory-budget.ts'
import { restoreTags, tagOfUnchanged, weak } from '../../protocol/entity-tags.ts'
import type { Encoding } from './accept-encoding.ts'
import { Negotiator } from './accept-encoding.ts'
import { BodyCompressor } from './body-compressor.ts'
import { CompressedBody } from './compressed-body.ts'
import type { Zlib } from './compressors.ts'
import { Compressors, flushes, mostMemory } from './compressors.ts'
import type { Options } from './options.ts'
import { Compression, check } from './options.ts'
import type { Callers } from './response.ts'
import { encodedHeaders, Rules, untouched, varyOf } from './response.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    compression?: Options | false
  }
}

const advice = 'write compression: {}'
const names = ['compress', 'compressor', 'gzip', 'brotli', 'zstd', 'deflate', 'gzipCompression', 'responseCompression']

export default edgeConcern({
  name: 'compression',
  options: orOff(Compression),
  noShadow: 'it refuses no request',
  protects: false,
  apiFacts: ({ encodings }) => ({
    headers: {
      'Content-Encoding': `Encoding that the client accepts: ${encodings.join(', ')}. Small bodies have none.`
    }
  }),
  aliases: Object.fromEntries(names.map((name) => [name, advice])),
  innerAliases: {
    'algorithms|algorithm|compressorLibrary|encoding': 'write "encodings"',
    'includedContentTypes|contentTypes|contentType|mimeTypes|customTypes': 'write "types"',
    excludedContentTypes: 'write those that are compressed under "types"',
    'minResponseBodyBytes|minLength|minContentLength|threshold|minimumLength': 'write "minSize"',
    'compLevel|compressionLevel|gzipLevel|brotliLevel|quality': 'write level: { gzip: 6, br: 4, zstd: 3 }'
  },
  check,
  explain({ encodings, authenticated }, { headers, consumer }) {
    const { encoding } = new Negotiator(encodings).choose(headers['accept-encoding'])
    if (encoding === null) return 'compresses nothing: the client asks for no encoding'
    const isKnown = consumer !== null || headers.authorization !== undefined || headers.cookie !== undefined
    const which = isKnown && !authenticated ? 'public responses of such types' : 'responses of such types'
    return `compresses ${which} with ${encoding}`
  },
  async plugin(_fastify, { stores, meter }) {
    const budget = stores.claim('jingwei.compression-memory', null, () => new MemoryBudget(mostMemory))
    meter.gauge({
      name: 'jingwei_edge_compression_memory_bytes',
      help: 'Memory that is reserved for responses that are compressed now.',
      collect: (set) => set({}, budget.used)
    })
    return (options, routeOptions) => {
      const { name, edge } = edgeRouteOf(routeOptions.config)!
      const compressors = new Compressors(budget, options.level)
      const rules = new Rules(options, callersOf(edge))
      const metrics = metricsOf(meter, name)
      const open = (encoding: Encoding, length: unknown): Zlib | null => {
        const zlib = compressors.open(encoding, length === undefined ? null : Number(length))
        if (zlib === null) metrics.skipped.inc()
        else metrics.count(encoding)
        return zlib
      }
      const onSend = markRawForm(compressReply(rules, open))
      routeOptions.config = { ...routeOptions.config!, encodeResponse: compressRaw(rules, open) }
      return { onRequest, onSend }
    }
  }
})

/** Returns facts about the callers of a route, by the settings of other concerns. */
function callersOf(edge: object): Callers {
  const authentication: unknown = Reflect.get(edge, 'authentication')
  return {
    anonymous: (authentication as { anonymous?: string } | undefined)?.anonymous,
    areDecidedUpon: ['forwardAuth', 'authorizer'].some((name) => Boolean(Reflect.get(edge, name)))
  }
}

const onRequest: onRequestHookHandler = ({ raw }, _reply, done) => {
  restoreTags(raw)
  done()
}

type Open = (encoding: Encoding, length: unknown) => Zlib | null

function compressRaw(rules: Rules, open: Open): EncodeResponse {
  return (request, reply, status, headers) => {
    const own = reply.getHeaders()
    const header = (name: string) => own[name] ?? headers[name]
    if (status === 304) {
      const tag = tagOfUnchanged(request, headers.etag)
      if (tag === null && !rules.variesUnchanged({ header })) return null
      const vary = varyOf(headers.vary) as string
      return { headers: { ...headers, ...(tag !== null && { etag: tag }), vary }, start: null }
    }
    const { isEligible, encoding } = rules.judge(request, { status, header })
    if (!isEligible) return null
    const zlib = encoding !== null && request.method !== 'HEAD' ? open(encoding, headers['content-length']) : null
    if (encoding === null || (zlib === null && request.method !== 'HEAD')) {
      return { headers: { ...headers, vary: varyOf(headers.vary) as string }, start: null }
    }
    const start = zlib && ((sink: EncoderSink) => new BodyCompressor(zlib, flushes[encoding], sink))
    return { headers: encodedHeaders(headers, encoding), start }
  }
}

/** Responses that a hook has given an encoding. An error that replaces such a response passes the hook once more. */
const encoded = new WeakSet<FastifyRequest>()

function compressReply(rules: Rules, open: Open): onSendHookHandler {
  return (request, reply, payload: unknown, done) => {
    if (encoded.has(request)) reply.removeHeader('content-encoding')
    const { statusCode: status } = reply
    if (status === 304) {
      const tag = tagOfUnchanged(request, reply.getHeader('etag'))
      if (tag !== null || rules.variesUnchanged({ header: (name) => reply.getHeader(name) })) addVary(reply)
      if (tag !== null) reply.header('etag', tag)
      return done(null, payload)
    }
    const size = sizeOf(payload)
    const header = (name: string) => (name === 'content-length' && size !== null ? size : reply.getHeader(name))
    const { isEligible, encoding } = payload instanceof Response ? untouched : rules.judge(request, { status, header })
    if (!isEligible) return done(null, payload)
    addVary(reply)
    const isHead = request.method === 'HEAD'
    // Fastify gets the length for a HEAD from a payload that is no stream.
    if (encoding === null || payload === null || payload === undefined || (isHead && size !== null)) {
      return done(null, payload)
    }
    const zlib = isHead ? null : open(encoding, header('content-length'))
    if (zlib === null && !isHead) return done(null, payload)
    const tag = reply.getHeader('etag')
    if (typeof tag === 'string') reply.header('etag', weak(tag))
    reply.removeHeader('content-length').removeHeader('accept-ranges').header('content-encoding', encoding)
    encoded.add(request)
    if (zlib === null) return done(null, payload)
    const source = size === null ? streamOf(payload)! : Readable.from([Buffer.from(payload as string | Buffer)])
    done(null, new CompressedBody(source, zlib, flushes[encoding]))
  }
}

/** Returns the bytes of a payload that is no stream; null for a stream, and for none. */
function sizeOf(payload: unknown): number | null {
  return typeof payload === 'string' || payload instanceof Uint8Array ? Buffer.byteLength(payload) : null
}

function addVary(reply: FastifyReply): FastifyReply {
  return reply.header('vary', varyOf(reply.getHeader('vary') as string | string[] | undefined))
}

function metricsOf(meter: ConfigurationMeter, route: string) {
  const responses = meter.counter({
    name: 'jingwei_edge_compressed_responses_total',
    help: 'Responses that were compressed, by route and encoding.',
    labelNames: ['route', 'encoding']
  })
  const skipped = meter.counter({
    name: 'jingwei_edge_compression_skipped_total',
    help: 'Responses that were not compressed because the memory for compression was in use.',
    labelNames: ['route']
  })
  return {
    count: (encoding: Encoding) => responses.labels(route, encoding).inc(),
    skipped: skipped.labels(route)
  }
}
