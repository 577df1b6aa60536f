/** Encodes the bodies of a route's responses on the raw path, where no `onSend` hook runs. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'

/** Takes the output of a body encoder. */
export interface EncoderSink {
  data(chunk: Buffer): void
  /** Called once the encoder can take more, after `write` has returned false. */
  drain(): void
  /** All of the body was encoded and passed to `data`. */
  end(): void
  fail(error: Error): void
}

/** A body that is encoded. It calls its sink later, never within its own methods. */
export interface BodyEncoder {
  /** Returns false if the source should pause. The chunk must stay as it is. */
  write(chunk: Buffer): boolean
  end(): void
  /** Stops and continues the output. */
  pause(): void
  resume(): void
  /** Ends the encoder without further calls of the sink; may be called several times. */
  destroy(): void
}

/** A response as its client gets it. */
export interface EncodedHead {
  readonly headers: IncomingHttpHeaders
  /** Starts the encoder of the body; null if the body is not encoded, or there is none. */
  readonly start: ((sink: EncoderSink) => BodyEncoder) | null
}

/** Returns the headers and the encoder of a response; null if it stays as it is. */
export type EncodeResponse = (
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  headers: IncomingHttpHeaders
) => EncodedHead | null

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Encodes the service's responses on the raw path; a concern sets it. */
    encodeResponse?: EncodeResponse
  }
}

/** `onSend` hooks of concerns that set `encodeResponse` or `request.onServiceResponse` as well, so that they need no reply path. */
const withRawForm = new WeakSet<object>()

export function markRawForm<T extends object>(hook: T): T {
  withRawForm.add(hook)
  return hook
}

export const hasRawForm = (hook: unknown): boolean => typeof hook === 'function' && withRawForm.has(hook)
