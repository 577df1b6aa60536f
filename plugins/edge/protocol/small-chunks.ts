import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/** Size from which chunks are passed on at once. */
const smallBytes = 4 * 1024
/** Gathered bytes that are passed on together. */
const mostGathered = 16 * 1024
/** Chunks per event-loop iteration, above which a connection is not read until the next one. */
const mostChunks = 1000

/**
 * Joins the small chunks of a request body that arrive in one event-loop iteration. Readers work per chunk, and a client may
 * send a chunk, or an HTTP/2 frame, for each byte: a megabyte of them would take seconds. The first chunk of an iteration is
 * passed on at once, so a client that sends small chunks now and then is not delayed.
 */
export class SmallChunks {
  readonly #raw: IncomingMessage
  readonly #push: IncomingMessage['push']
  readonly #onEnd: () => void
  /** Bytes received; the reader resets it. */
  bytes = 0
  /** Number of chunks in this event-loop iteration. */
  #count = 0
  #gathered: Buffer[] = []
  #gatheredBytes = 0

  /** `onEnd` is called when the whole body has been received. */
  constructor(raw: IncomingMessage, onEnd: () => void) {
    this.#raw = raw
    this.#onEnd = onEnd
    this.#push = raw.push
    raw.push = (chunk: Buffer | null) => this.#receive(chunk)
  }

  #receive(chunk: Buffer | null): boolean {
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

/** Stops reading a connection in this event-loop iteration, even if it is resumed: libuv would read up to 32 times. */
function holdBack(raw: IncomingMessage): void {
  const { socket } = raw
  // HTTP/2 sessions read the socket themselves.
  if (raw.httpVersionMajor > 1) return
  socket.on('resume', pause).pause()
  setImmediate(() => {
    socket.off('resume', pause)
    // With a full buffer, the stream resumes the socket when it has been read.
    if (raw.readableLength < raw.readableHighWaterMark) socket.resume()
  })
}

function pause(this: Socket): void {
  this.pause()
}
