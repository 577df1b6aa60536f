import { MalformedResponse } from './malformed.ts'

/** Most bytes of a chunk's size line with its extensions, which are hardly used. */
const mostSizeBytes = 1024

const size = 0
const extension = 1
const sizeEnd = 2
const payload = 3
const payloadEnd = 4
const lineEnd = 5
const last = 6

const [lf, cr, semicolon] = [10, 13, 59] as const

/** Reads the framing of the chunks of a body: sizes, extensions and line ends (RFC 9112, 7.1). */
export class ChunkFraming {
  #state = size
  /** Remaining bytes of the chunk. */
  #left = 0
  /** Bytes read of the chunk's size line. */
  #sizeBytes = 0

  begin(): void {
    this.#state = size
    this.#left = 0
    this.#sizeBytes = 0
  }

  get inPayload(): boolean {
    return this.#state === payload
  }

  /** The last chunk's size line has been read; the trailer section follows. */
  get isLast(): boolean {
    return this.#state === last
  }

  /** Returns how many of the next bytes are payload. */
  take(available: number): number {
    return Math.min(available, this.#left)
  }

  taken(bytes: number): void {
    this.#left -= bytes
    if (this.#left === 0) this.#state = payloadEnd
  }

  /** Reads a byte of the framing. Throws `MalformedResponse`. */
  read(byte: number): void {
    switch (this.#state) {
      case size: {
        const digit = hexDigits[byte]!
        if (digit < 16) {
          this.#left = this.#left * 16 + digit
          if (++this.#sizeBytes > mostSizeBytes || this.#left > Number.MAX_SAFE_INTEGER) throw bad('a size too large')
        } else if (this.#sizeBytes > 0 && (byte === cr || byte === semicolon)) {
          this.#state = byte === cr ? sizeEnd : extension
        } else {
          throw bad('a size that is not a hexadecimal number')
        }
        break
      }
      case extension:
        if (byte === cr) this.#state = sizeEnd
        else if (byte < 32 && byte !== 9) throw bad('a control character in an extension')
        else if (++this.#sizeBytes > mostSizeBytes) throw bad('extensions too long')
        break
      case sizeEnd:
        if (byte !== lf) throw bad('a size without end of line')
        this.#state = this.#left === 0 ? last : payload
        break
      case payloadEnd:
        if (byte !== cr) throw bad('its data is longer than its size')
        this.#state = lineEnd
        break
      default:
        if (byte !== lf) throw bad('no end of line after its data')
        this.#state = size
        this.#sizeBytes = 0
    }
  }
}

/** Values of hexadecimal digits by their codes; 16 for other characters. */
const hexDigits = new Uint8Array(256).fill(16)
for (let i = 0; i < 16; i++) {
  hexDigits[i.toString(16).charCodeAt(0)] = i
  hexDigits[i.toString(16).toUpperCase().charCodeAt(0)] = i
}

function bad(what: string): MalformedResponse {
  return new MalformedResponse('HPE_INVALID_CHUNK_SIZE', `malformed chunk: ${what}`)
}
