import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/** Chunks from this many bytes on pass as they come. */
const smallBytes = 4 * 1024
/** Gathered bytes that are passed on at once. */
const mostGathered = 16 * 1024
/** Chunks in one event-loop iteration, beyond which a connection is not read until the next one. */
const mostChunks = 1000

/**
 * Passes the chunks of a request body to its stream, small ones of one event-loop iteration together. Every reader's
 * work is by chunk, and a client may send a chunk, or a frame of HTTP/2, for each byte: a megabyte of them would take
 * seconds. The first of an iteration passes at once, so a client that sends little now and then is not delayed.
 */
export class SmallChunks {
  readonly #raw: IncomingMessage
  readonly #push: IncomingMessage['push']
  readonly #onEnd: () => void
  /** Bytes that came; whoever reads it sets it back. */
  bytes = 0
  /** Chunks of this event-loop iteration. */
  #count = 0
  #gathered: Buffer[] = []
  #gatheredBytes = 0

  /** `onEnd` is called when all of the body has come. */
  constructor(raw: IncomingMessage, onEnd: () => void) {
    this.#raw = raw
    this.#onEnd = onEnd
    this.#push = raw.push
    raw.push = (chunk: Buffer | null) => this.#take(chunk)
  }

  #take(chunk: Buffer | null): boolean {
    if (chunk === null) {
      this.#onEnd()
      this.#flush()
      return this.#push.call(this.#raw, null)
    }
    this.bytes += chunk.length
    if (++this.#count === 1) setImmediate(this.#endIteration)
    if (this.#count === mostChunks) holdBack(this.#raw)
    if (this.#count === 1 || chunk.length >= smallBytes) {
      this.#flush()
      return this.#push.call(this.#raw, chunk)
    }
    this.#gathered.push(chunk)
    this.#gatheredBytes += chunk.length
    return this.#gatheredBytes < mostGathered || this.#flush()
  }

  readonly #endIteration = (): void => {
    this.#count = 0
    this.#flush()
  }

  #flush(): boolean {
    const chunks = this.#gathered
    if (chunks.length === 0) return true
    this.#gathered = []
    this.#gatheredBytes = 0
    return this.#push.call(this.#raw, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))
  }
}

/** Reads no more of a connection in this event-loop iteration, whoever asks for it. libuv would read up to 32 times. */
function holdBack(raw: IncomingMessage): void {
  const { socket } = raw
  // HTTP/2 reads by itself.
  if (raw.httpVersionMajor > 1) return
  socket.on('resume', pause).pause()
  setImmediate(() => {
    socket.off('resume', pause)
    // A full buffer resumes it when it has been read.
    if (raw.readableLength < raw.readableHighWaterMark) socket.resume()
  })
}

function pause(this: Socket): void {
  this.pause()
}
