/** Close code 1001, going away (RFC 6455, 7.4.1). */
const goingAway = [0x03, 0xe9] as const

/** Close frames of the gateway. Frames to a service must be masked (RFC 6455, 5.3); the masking key is zero. */
export const closeFrame = {
  toClient: Buffer.from([0x88, 0x02, ...goingAway]),
  toService: Buffer.from([0x88, 0x82, 0, 0, 0, 0, ...goingAway])
} as const

const opcodeClose = 8

/** Follows the frames of one direction by their headers, to find positions at which a close frame may be inserted. */
export class FrameReader {
  /** True once a close frame has passed: no frame may follow it. */
  closed = false
  readonly #header = new Uint8Array(14)
  #have = 0
  #payloadLeft = 0

  get atBoundary(): boolean {
    return this.#have === 0 && this.#payloadLeft === 0
  }

  /** Reads a chunk. Returns the offset after the last frame that ends within it, or -1. */
  read(chunk: Buffer): number {
    let boundary = -1
    let at = 0
    while (at < chunk.length) {
      if (this.#payloadLeft > 0) {
        const length = Math.min(this.#payloadLeft, chunk.length - at)
        this.#payloadLeft -= length
        at += length
      } else {
        this.#header[this.#have++] = chunk[at++]!
        if (this.#have >= 2 && this.#have === this.#headerLength()) this.#begin()
      }
      if (this.atBoundary) boundary = at
    }
    return boundary
  }

  #headerLength(): number {
    const second = this.#header[1]!
    const length = second & 0x7f
    return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (second & 0x80 ? 4 : 0)
  }

  #begin(): void {
    const length = this.#header[1]! & 0x7f
    const view = new DataView(this.#header.buffer)
    this.#payloadLeft = length === 126 ? view.getUint16(2) : length === 127 ? Number(view.getBigUint64(2)) : length
    if ((this.#header[0]! & 0x0f) === opcodeClose) this.closed = true
    this.#have = 0
  }
}
