/** Changes the bodies of responses before any byte of them is sent. */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, onSendHookHandler } from 'fastify'
import type { Hold } from '../../body-memory.ts'
import { streamOf } from '../../bridge/service-body.ts'
import { relabel, relabelUnchanged, unpacked } from '../../bridge/whole-response.ts'
import { decoded } from '../../protocol/content-coding.ts'
import type { MediaType } from '../../protocol/media-types.ts'
import { mediaTypeOf } from '../../protocol/media-types.ts'
import { BodiesBusy, readBody } from '../../protocol/read-body.ts'
import { bodyFrom } from '../../protocol/request-body.ts'
import type { Kind } from './refusals.ts'
import { reasons, responseRefusal, textOf } from './refusals.ts'
import type { Deps } from './request.ts'
import type { Step } from './rules.ts'
import { edited } from './rules.ts'
import { Unfit } from './scan.ts'

type Done = (error: Error | null, payload?: unknown) => void

/** `isMeant` returns whether the rules are for the response; those that the gateway makes stay as they are. */
export function responseHook(deps: Deps, isMeant: (request: FastifyRequest) => boolean): onSendHookHandler {
  return (request, reply, given, done: Done) => {
    if (!isMeant(request)) return done(null, given)
    const payload = unpacked(given, reply)
    if (reply.statusCode === 304) {
      relabelUnchanged(request, reply)
      return done(null, payload)
    }
    const types = typesOf(reply)
    const steps = stepsFor(deps.steps, types, reply)
    if (steps.length === 0) return done(null, payload)
    new Change(deps, steps, request, reply, done).run(payload, types)
  }
}

type Types = readonly (MediaType | null)[]

function stepsFor(steps: readonly Step[], types: Types, { statusCode: status }: FastifyReply): readonly Step[] {
  if (status === 204 || status === 205) return []
  const essences = types.map((type) => type?.essence ?? '')
  // Its parts may be of any type.
  const isAny = status === 206 && essences.includes('multipart/byteranges')
  return steps.filter(({ hasStatus, hasType }) => hasStatus(status) && (isAny || essences.some(hasType)))
}

/** Returns the media types of a response; one that is null without a type. A service may send the field several times. */
const typesOf = (reply: FastifyReply): Types =>
  [reply.getHeader('content-type')].flat().map((field) => mediaTypeOf(field === undefined ? undefined : String(field)))

/** The change of one response. */
class Change {
  readonly #deps: Deps
  readonly #steps: readonly Step[]
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #done: Done

  constructor(deps: Deps, steps: readonly Step[], request: FastifyRequest, reply: FastifyReply, done: Done) {
    this.#deps = deps
    this.#steps = steps
    this.#request = request
    this.#reply = reply
    this.#done = done
  }

  run(payload: unknown, types: Types): void {
    const { maxSize } = this.#deps
    const [request, reply] = [this.#request, this.#reply]
    const stream = streamOf(payload)
    const isEmpty = payload === null || payload === undefined
    if (isEmpty || (request.method === 'HEAD' && stream !== null)) {
      // The length of the changed body is unknown.
      relabel(reply)
      this.#done(null, payload)
      return
    }
    if (reply.statusCode === 206) this.#refuse('part', payload)
    else if (types.length > 1 || types[0]?.isUtf8 === false) this.#refuse('coding', payload)
    else if (stream === null) this.#takeBytes(payload)
    else if (Number(reply.getHeader('content-length') ?? 0) > maxSize) this.#refuse('size', stream)
    else this.#read(stream, request.server.bodyMemory.holdFor(request, reply))
  }

  #takeBytes(payload: unknown): void {
    const bytes = bytesOf(payload)
    if (bytes === null) this.#refuse('coding', payload)
    else if (bytes.length > this.#deps.maxSize) this.#refuse('size', payload)
    else this.#decode(bytes)
  }

  #read(stream: Readable, hold: Hold): void {
    readBody(
      stream,
      this.#deps.maxSize,
      (error, bytes, chunks) => {
        if (bytes !== null) this.#decode(bytes, hold)
        else if (error === null) this.#refuse('size', bodyFrom(chunks, stream))
        else if (error instanceof BodiesBusy) this.#busy(error, bodyFrom(chunks, stream), stream)
        else {
          stream.on('error', () => {}).destroy()
          this.#done(error)
        }
      },
      (size) => hold.take(size)
    )
  }

  /** Responds with 503 for want of memory; in shadow mode, `payload` is passed on. */
  #busy(error: Error & { code: string }, payload: unknown, stream: Readable | null): void {
    const { shadow, count } = this.#deps
    count('refused')
    if (shadow !== null) {
      shadow(this.#request, error.code, reasons.busy, this.#reply)
      this.#done(null, payload)
      return
    }
    this.#request.refusalReason = reasons.busy
    stream?.destroy()
    this.#done(error)
  }

  #decode(bytes: Buffer, hold: Hold | null = null): void {
    const { maxSize } = this.#deps
    decoded(bytes, this.#reply.getHeader('content-encoding'), maxSize, (_fault, plain) => {
      if (plain === null) this.#refuse('coding', bytes)
      else if (plain !== bytes && hold?.take(plain.length) === false) this.#busy(new BodiesBusy(), bytes, null)
      else this.#edit(plain, bytes)
    })
  }

  #edit(plain: Buffer, bytes: Buffer): void {
    const [request, reply] = [this.#request, this.#reply]
    const { maxSize, count } = this.#deps
    let result: Buffer
    try {
      const response = { status: reply.statusCode, header: (name: string) => reply.getHeader(name) }
      result =
        plain.length === 0 ? plain : edited(plain, this.#steps, { request, isUncounted: null, response }, maxSize)
    } catch (error) {
      if (error instanceof Unfit) this.#refuse(error.fault, bytes)
      else this.#done(error as Error)
      return
    }
    const moreBytes = result.length - plain.length
    if (moreBytes > 0 && !request.server.bodyMemory.holdFor(request, reply).take(moreBytes)) {
      this.#busy(new BodiesBusy(), bytes, null)
      return
    }
    count(result === plain ? 'unchanged' : 'changed')
    relabel(reply)
    this.#done(null, result)
  }

  /** Responds with 502 in place of a response that may have what a rule removes; in shadow mode it is passed on. */
  #refuse(kind: Kind, payload: unknown): void {
    const { shadow, count, maxSize } = this.#deps
    const request = this.#request
    count('refused')
    const error = responseRefusal()
    request.log.warn(
      {
        route: request.routeOptions.config.route?.name,
        detail: kind === 'size' ? `it is larger than ${maxSize} bytes` : textOf(kind)
      },
      `a response cannot be changed as edge.body says: ${shadow === null ? 'the client gets a 502' : 'it is passed on'}`
    )
    if (shadow !== null) {
      shadow(request, error.code, reasons[kind], this.#reply)
      this.#done(null, payload)
      return
    }
    request.refusalReason = reasons[kind]
    streamOf(payload)
      ?.on('error', () => {})
      .destroy()
    this.#done(error)
  }
}

/** Returns a payload that is no stream as bytes; null for an object of another kind. */
function bytesOf(payload: unknown): Buffer | null {
  if (typeof payload === 'string') return Buffer.from(payload)
  return payload instanceof Uint8Array ? Buffer.from(payload.buffer, payload.byteOffset, payload.length) : null
}
