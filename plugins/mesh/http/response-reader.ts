import { errors } from '../../undici.ts'
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

/** Most informational responses that are passed on before the final one; a service may send any number. */
const mostInformational = 32
/** Largest chunk payload that is moved, to be passed on together with that of the previous chunk. */
const smallChunk = 4 * 1024

const idle = 0
const head = 1
const sized = 2
const chunks = 3
const trailers = 4
const toTheEnd = 5
/** The response is complete, but its paused request has not received the end yet. */
const whole = 6

/** Incremental parser of one connection's responses (RFC 9112). */
export class ResponseReader {
  /** Bytes that arrived after a response, or without a request. */
  surplus: Buffer | null = null
  /** True if the last response allows another request on the connection. */
  persistent = true
  /** Idle timeout of the service in milliseconds (`Keep-Alive: timeout`); null if it sent none. */
  idleHintMs: number | null = null
  /** True inside the read loop, which continues by itself. */
  busy = false
  /** Most bytes of a header section, and of a trailer section. */
  readonly #maxHeaderSize: number
  #request: PooledRequest | null = null
  #state = idle
  /** Bytes left of a body of a known length. */
  #left = 0
  readonly #framing = new ChunkFraming()
  /** Received part of a header or trailer section. */
  #text = ''
  #informational = 0
  /** Number of chunks and header sections. */
  #messages = 0
  /** Bytes that arrived while the request was paused. */
  #held: Buffer | null = null

  constructor(maxHeaderSize: number) {
    this.#maxHeaderSize = maxHeaderSize
  }

  /** Returns the number of messages since the last call. */
  resetMessages(): number {
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

  /** Resets the reader if the request was not sent. */
  cancel(): void {
    this.#request = null
    this.#state = idle
  }

  get idle(): boolean {
    return this.#state === idle
  }

  /** True between the end of the header section and the end of the response. */
  get inBody(): boolean {
    return this.#state > head
  }

  /** True if a paused request has not received all bytes, or the end, yet. */
  get holds(): boolean {
    return this.#held !== null || this.#state === whole
  }

  /** Bytes of the response that have not arrived; without a known length 0 if it looks complete, else infinity. */
  get remaining(): number {
    if (this.#state === sized) return this.#left - (this.#held?.length ?? 0)
    if (this.#state <= head || this.#state === trailers || this.#state === whole) return 0
    return this.#held?.toString('latin1', this.#held.length - 4) === '\r\n\r\n' ? 0 : Number.POSITIVE_INFINITY
  }

  /** Reads a part of `buffer`; `lent`: its memory will be reused. Throws `MalformedResponse`. */
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

  /** Reads the held bytes after the request has resumed. */
  readHeld(): void {
    const held = this.#held ?? Buffer.alloc(0)
    this.#held = null
    this.read(held, 0, held.length, false)
  }

  /** Called when the service has closed its side; returns false if the response is incomplete. */
  finish(): boolean {
    if (this.#state === toTheEnd && this.#held === null) {
      this.#state = whole
      this.#run(Buffer.alloc(0), 0, 0, false)
    }
    return this.#state === idle || this.#state === whole
  }

  /** Reads until the request pauses or ends, the response is complete, or no bytes are left; returns the position. */
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
          deliver(request, buffer, at, to, lent)
          at = to
          break
        }
        case chunks:
          at = this.#readChunks(request, buffer, at, end, lent)
          break
        case toTheEnd:
          deliver(request, buffer, at, end, lent)
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

  /** Returns the position of the blank line in `#text`, to which the bytes are appended; -1 if it has not arrived. */
  #gather(buffer: Buffer, at: number, end: number): number {
    const before = this.#text.length
    const limit = Math.min(end, at + this.#maxHeaderSize + 4 - before)
    // Search in the bytes first: more header sections may follow, which would be decoded again and again.
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

  /** Handles a 101 response: the connection switches to another protocol (RFC 9110, 7.8). */
  #switch(request: PooledRequest, read: ResponseHead): void {
    this.persistent = false
    if (request.upgrade !== null && read.headers.upgrade !== undefined) {
      this.#state = idle
      this.#request = null
      request.switching = read
      return
    }
    // Thrown here, so that it counts as a failure of the instance; an error of a caller would not.
    throw new MalformedResponse('HPE_UNEXPECTED_UPGRADE', 'the response switches to a protocol that was not requested')
  }

  #readTrailers(request: PooledRequest, buffer: Buffer, at: number, end: number): number {
    const before = this.#text.length
    // Starts with a line end, so that an empty trailer section ends with a blank line as well.
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
   * Reads consecutive chunks, and passes on their payload as one. The cost of handlers is per call: with chunks of one
   * byte, which a service may send, a megabyte would take seconds.
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
        // Moves the payload over the framing, which has been read.
        if (length === 1) buffer[payloadEnd] = buffer[at]!
        else if (payloadEnd < at) buffer.copyWithin(payloadEnd, at, at + length)
        at += length
        payloadEnd += length
        framing.taken(length)
      }
      if (framing.isLast) this.#state = trailers
    } finally {
      if (payloadEnd > payload) deliver(request, buffer, payload, payloadEnd, lent)
    }
    return at
  }
}

function deliver(request: PooledRequest, buffer: Buffer, start: number, end: number, lent: boolean): void {
  request.data(lent && !request.borrows ? Buffer.from(buffer.subarray(start, end)) : slice(buffer, start, end))
}

function slice(buffer: Buffer, start: number, end: number): Buffer {
  return start === 0 && end === buffer.length ? buffer : buffer.subarray(start, end)
}
