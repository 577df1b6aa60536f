import { errors } from '../core/undici.ts'
import { ChunkFraming } from './chunk-framing.ts'
import { MalformedResponse } from './malformed.ts'
import type { PooledRequest } from './pooled-request.ts'
import type { ResponseHead } from './response-head.ts'
import {
  bodyLength,
  checkBeginning,
  checkLines,
  chunked,
  idleHint,
  isPersistent,
  parseFields,
  parseHead,
  untilClose
} from './response-head.ts'

/** Informational responses that are passed on before the final one. They are hints, and a service may send any number. */
const mostInformational = 32
/** Payload up to this many bytes is worth moving, to be handed over together with that of the chunk before. */
const smallChunk = 4 * 1024

const idle = 0
const head = 1
const sized = 2
const chunks = 3
const trailers = 4
const toTheEnd = 5
/** All of it is here; its reader, who has paused, does not know yet. */
const whole = 6

/** Reads one connection's responses, byte by byte as they come (RFC 9112). */
export class ResponseReader {
  /** Bytes that came behind a response, or before a request. */
  surplus: Buffer | null = null
  /** The last head's word on whether another request may follow. */
  persistent = true
  /** Time for which the service keeps the idle connection, if it has said so. */
  idleHintMs: number | null = null
  /** It is telling its request something just now, and goes on by itself. */
  busy = false
  /** Bytes of a header section, and of a trailer section, at most. */
  readonly #maxHeaderSize: number
  #request: PooledRequest | null = null
  #state = idle
  /** Bytes left of a body of a known length. */
  #left = 0
  readonly #framing = new ChunkFraming()
  /** The part of a head, or of trailers, that is here. */
  #text = ''
  #informational = 0
  /** Chunks and heads. */
  #messages = 0
  /** Came while the request had paused. */
  #held: Buffer | null = null

  constructor(maxHeaderSize: number) {
    this.#maxHeaderSize = maxHeaderSize
  }

  /** Returns the number of messages since it was last asked. */
  takeMessages(): number {
    const messages = this.#messages
    this.#messages = 0
    return messages
  }

  begin(request: PooledRequest): void {
    this.#request = request
    this.#state = head
    this.#text = ''
    this.#informational = 0
  }

  /** The request was not sent after all. */
  cancel(): void {
    this.#request = null
    this.#state = idle
  }

  get idle(): boolean {
    return this.#state === idle
  }

  /** The head is here, the end is not. */
  get inBody(): boolean {
    return this.#state > head
  }

  /** Bytes or an end are here that a paused request has not got yet. */
  get holds(): boolean {
    return this.#held !== null || this.#state === whole
  }

  /** Bytes of the response that are still to come; where its framing does not say, whether it looks finished. */
  get remaining(): number {
    if (this.#state === sized) return this.#left - (this.#held?.length ?? 0)
    if (this.#state <= head || this.#state === trailers || this.#state === whole) return 0
    return this.#held?.toString('latin1', this.#held.length - 4) === '\r\n\r\n' ? 0 : Number.POSITIVE_INFINITY
  }

  /** A part of `buffer`; `lent` if its memory will be used again. Throws `MalformedResponse`. */
  read(buffer: Buffer, start: number, end: number, lent: boolean): void {
    if (this.#held !== null) {
      this.#held = Buffer.concat([this.#held, buffer.subarray(start, end)])
      return
    }
    const at = this.#run(buffer, start, end, lent)
    if (at === end || this.#request?.over === true) return
    const rest = lent ? Buffer.from(buffer.subarray(at, end)) : buffer.subarray(at, end)
    if (this.#state === idle) this.surplus = rest
    else this.#held = rest
  }

  /** The request has resumed. */
  readHeld(): void {
    const held = this.#held ?? Buffer.alloc(0)
    this.#held = null
    this.read(held, 0, held.length, false)
  }

  /** The service has closed its side; false if something was still to come. */
  finish(): boolean {
    if (this.#state === toTheEnd && this.#held === null) {
      this.#state = whole
      this.#run(Buffer.alloc(0), 0, 0, false)
    }
    return this.#state === idle || this.#state === whole
  }

  /** Up to where it read: as far as there is something, unless the request pauses, ends or its answer is over. */
  #run(buffer: Buffer, start: number, end: number, lent: boolean): number {
    this.busy = true
    try {
      return this.#steps(buffer, start, end, lent)
    } finally {
      this.busy = false
    }
  }

  #steps(buffer: Buffer, start: number, end: number, lent: boolean): number {
    const request = this.#request
    let at = start
    while (request !== null && !request.over) {
      if (this.#state === idle || (request.paused && this.#state > head)) return at
      if (this.#state === whole) {
        this.#end(request)
        continue
      }
      if (at === end) return at
      switch (this.#state) {
        case head:
          at = this.#readHead(request, buffer, at, end)
          break
        case sized: {
          const to = Math.min(end, at + this.#left)
          this.#left -= to - at
          if (this.#left === 0) this.#state = whole
          hand(request, buffer, at, to, lent)
          at = to
          break
        }
        case chunks:
          at = this.#readChunks(request, buffer, at, end, lent)
          break
        case toTheEnd:
          hand(request, buffer, at, end, lent)
          at = end
          break
        case trailers:
          at = this.#readTrailers(request, buffer, at, end)
          break
      }
    }
    return at
  }

  #end(request: PooledRequest): void {
    this.#state = idle
    this.#request = null
    request.end()
  }

  /** Up to the blank line; what is not whole yet is kept as text. */
  #gather(buffer: Buffer, at: number, end: number): number {
    const before = this.#text.length
    const limit = Math.min(end, at + this.#maxHeaderSize + 4 - before)
    // Looked for in the bytes first: behind it there may be more heads, each of which would be decoded again and again.
    const blank = before === 0 ? buffer.subarray(at, limit).indexOf('\r\n\r\n', 0, 'latin1') : -1
    const text = buffer.toString('latin1', at, blank < 0 ? limit : at + blank + 4)
    this.#text = before === 0 ? text : this.#text + text
    const found = this.#text.indexOf('\r\n\r\n', Math.max(0, before - 3))
    if (found < 0 && this.#text.length > this.#maxHeaderSize) throw new errors.HeadersOverflowError()
    return found
  }

  #readHead(request: PooledRequest, buffer: Buffer, at: number, end: number): number {
    const before = this.#text.length
    const blank = this.#gather(buffer, at, end)
    if (blank < 0) {
      checkBeginning(this.#text)
      checkLines(this.#text, before)
      return end
    }
    this.#messages++
    const read = parseHead(this.#text, blank)
    this.#text = ''
    if (read.status >= 200) {
      const length = bodyLength(read, request.method)
      this.persistent = length !== untilClose && isPersistent(read)
      this.idleHintMs = idleHint(read.headers)
      this.#left = Math.max(length, 0)
      this.#state = length === chunked ? chunks : length === untilClose ? toTheEnd : length > 0 ? sized : whole
      this.#framing.begin()
      request.head(read)
    } else if (read.status === 101) {
      this.#switch(request, read)
    } else if (read.status !== 100 && ++this.#informational <= mostInformational) {
      request.head(read)
    }
    return at + blank + 4 - before
  }

  /** From here on the connection speaks another protocol (RFC 9110, 7.8). */
  #switch(request: PooledRequest, read: ResponseHead): void {
    this.persistent = false
    if (request.upgrade !== null && read.headers.upgrade !== undefined) {
      this.#state = idle
      this.#request = null
      request.switching = read
      return
    }
    // No interceptor and no caller is given it: what they throw is not the instance's fault, and this is.
    throw new MalformedResponse('HPE_UNEXPECTED_UPGRADE', 'the response switches to a protocol that was not requested')
  }

  #readTrailers(request: PooledRequest, buffer: Buffer, at: number, end: number): number {
    const before = this.#text.length
    // As if behind a field, so that trailers and none end alike.
    if (before === 0) this.#text = '\r\n'
    const blank = this.#gather(buffer, at, end)
    if (blank < 0) {
      checkLines(this.#text, before)
      return end
    }
    if (blank > 0) {
      const raw: string[] = []
      request.trailers(parseFields(this.#text, 2, blank, raw), raw)
    }
    this.#text = ''
    this.#state = whole
    return at + blank + 4 - Math.max(before, 2)
  }

  /**
   * Reads chunks that follow each other, and hands their payload over as one. Every handler's work is by call: for a
   * chunk a byte, as a service may send them, it would be seconds for a megabyte.
   */
  #readChunks(request: PooledRequest, buffer: Buffer, start: number, end: number, lent: boolean): number {
    const framing = this.#framing
    let at = start
    let payload = start
    let payloadEnd = start
    try {
      while (at < end && !framing.isLast) {
        if (!framing.inPayload) {
          framing.read(buffer[at++]!)
          continue
        }
        const length = framing.take(end - at)
        if (payloadEnd === payload) payload = payloadEnd = at
        else if (length > smallChunk) break
        this.#messages++
        // Overwrites what stood around the chunks, which has been read.
        if (length === 1) buffer[payloadEnd] = buffer[at]!
        else if (payloadEnd < at) buffer.copyWithin(payloadEnd, at, at + length)
        at += length
        payloadEnd += length
        framing.taken(length)
      }
      if (framing.isLast) this.#state = trailers
    } finally {
      if (payloadEnd > payload) hand(request, buffer, payload, payloadEnd, lent)
    }
    return at
  }
}

function hand(request: PooledRequest, buffer: Buffer, start: number, end: number, lent: boolean): void {
  request.data(lent && !request.borrows ? Buffer.from(buffer.subarray(start, end)) : part(buffer, start, end))
}

function part(buffer: Buffer, start: number, end: number): Buffer {
  return start === 0 && end === buffer.length ? buffer : buffer.subarray(start, end)
}
