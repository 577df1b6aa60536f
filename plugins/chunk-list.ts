/** Chunks of a body that is read as a whole. */

/** Chunks after which the last ones are joined if they are small: a chunk takes hundreds of bytes besides its own. */
const mostLoose = 128
/** Average size from which on chunks are not joined. */
const largeBytes = 1024
/** Size up to which joined chunks are joined again with later ones: 64 KB are copied in the time of a few chunks' arrival. */
const mostJoined = 64 * 1024

/**
 * Collects chunks. Many small ones are joined now and then, so that a body that arrives byte by byte takes little more memory
 * than its bytes: a sender chooses the size of chunks, and limits count bytes.
 */
export class ChunkList {
  readonly #chunks: Buffer[] = []
  #size = 0
  /** Number of the first chunks that stay as they are, and their bytes. */
  #settled = 0
  #settledBytes = 0

  /** Bytes of all chunks. */
  get size(): number {
    return this.#size
  }

  get chunks(): readonly Buffer[] {
    return this.#chunks
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#chunks.length - this.#settled < mostLoose) return
    const bytes = this.#size - this.#settledBytes
    if (bytes < mostLoose * largeBytes) this.#chunks.push(Buffer.concat(this.#chunks.splice(this.#settled), bytes))
    if (bytes < mostJoined) return
    this.#settled = this.#chunks.length
    this.#settledBytes = this.#size
  }

  clear(): void {
    this.#chunks.length = 0
    this.#size = this.#settled = this.#settledBytes = 0
  }

  /** Returns all bytes. */
  join(): Buffer {
    return Buffer.concat(this.#chunks, this.#size)
  }
}
