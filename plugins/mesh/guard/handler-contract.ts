import type { IncomingHttpHeaders } from 'node:http'
import { errors } from '../../undici.ts'
import type { DispatchHandler } from '../core/types.ts'

const ofResponses = ['onRequestStart', 'onResponseStart', 'onResponseData', 'onResponseEnd', 'onResponseError'] as const
const ofUpgrades = ['onRequestStart', 'onRequestUpgrade', 'onResponseError'] as const

/**
 * Throws as undici does if a handler lacks a method. A handler with undici's former methods (`onConnect`, `onHeaders`,
 * `onError`), for example, would never get the end of its call.
 */
export function assertHandler(handler: DispatchHandler, upgrade: boolean): void {
  for (const method of upgrade ? ofUpgrades : ofResponses) {
    if (typeof handler?.[method] !== 'function') throw new errors.InvalidArgumentError(`invalid ${method} method`)
  }
}

/** Returns the bytes of a chunk; null if it is neither a string nor bytes. */
export function bytesOf(chunk: unknown): Buffer | null {
  if (Buffer.isBuffer(chunk)) return chunk
  if (typeof chunk === 'string') return Buffer.from(chunk)
  return chunk instanceof Uint8Array ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : null
}

/**
 * Checks the order of a response's events and the length of its body. Bytes beyond the Content-Length would be parsed
 * as the next response on the client's connection; for missing bytes, the client would wait.
 */
export class ResponseContract {
  readonly #method: string
  #started = false
  /** Remaining bytes of the body; -1 if the length is unknown or there is no body. */
  #left = -1

  constructor(method: string) {
    this.#method = method
  }

  start(status: number, headers: IncomingHttpHeaders): Error | null {
    if (this.#started) return new Error('a second response')
    if (!Number.isInteger(status) || status < 100 || status > 999) return new Error(`${status} is not a status`)
    if (typeof headers !== 'object' || headers === null) return new Error('the response has no headers')
    if (status < 200) return null
    this.#started = true
    const length = headers['content-length']
    const hasBody = this.#method !== 'HEAD' && status !== 204 && status !== 304
    if (hasBody && length !== undefined && /^\d+$/.test(length)) this.#left = Number(length)
    return null
  }

  data(chunk: Buffer | null): Error | null {
    if (!this.#started) return new Error('a body without a response')
    if (chunk === null) return new Error('a chunk that is neither text nor bytes')
    if (this.#left < 0) return null
    this.#left -= chunk.length
    return this.#left < 0 ? new Error('the body is longer than its Content-Length') : null
  }

  end(): Error | null {
    if (!this.#started) return new Error('an end without a response')
    return this.#left > 0 ? new Error('the body is shorter than its Content-Length') : null
  }
}
