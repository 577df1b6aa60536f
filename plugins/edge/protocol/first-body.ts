/** Reads a request body before the service gets it, and hands it on. Several concerns may read the same body. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { ChunkList } from '../../chunk-list.ts'
import { BodiesBusy } from './read-body.ts'
import { bodyFrom, isCutOff } from './request-body.ts'

/** The part of a body that was read. */
interface Beginning {
  readonly list: ChunkList
  isWhole: boolean
}

const beginnings = new WeakMap<IncomingMessage, Beginning>()

/** Returns the body of a request for its next reader. */
export function bodyAfter(raw: IncomingMessage, payload: Readable): Readable {
  const beginning = beginnings.get(raw)
  if (beginning === undefined) return payload
  const { list, isWhole } = beginning
  return isWhole ? Readable.from(list.chunks) : bodyFrom(list.chunks, raw)
}

const disconnected = () => new Error('the client disconnected within the request body')

/**
 * Reads the whole body if it has at most `maxBytes`; resolves with null if it has more. The rest then stays unread, and
 * `bodyAfter` returns all of it. The client's connection stays open; `edge.bodyTimeout` and the listener's timeouts bound
 * the time. `take` takes memory for each chunk; without any, the error is `JW_BODY_BUSY`.
 */
export function readFirst(
  raw: IncomingMessage,
  maxBytes: number,
  take: (bytes: number) => boolean
): Promise<Buffer | null> {
  const beginning = beginnings.get(raw) ?? { list: new ChunkList(), isWhole: false }
  const { list } = beginning
  if (Number(raw.headers['content-length'] ?? 0) > maxBytes || list.size > maxBytes) return Promise.resolve(null)
  if (beginning.isWhole) return Promise.resolve(list.join())
  // No event follows if the client left during an earlier hook.
  if (isCutOff(raw)) return Promise.reject(disconnected())
  beginnings.set(raw, beginning)
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | null>()
  const onData = (chunk: Buffer): void => {
    list.add(chunk)
    const isTooLarge = list.size > maxBytes
    if (!isTooLarge && take(chunk.length)) return
    raw.pause()
    finish(() => (isTooLarge ? resolve(null) : reject(new BodiesBusy())))
  }
  const onEnd = (): void => {
    // Over HTTP/2, a body that is cut off ends, too.
    if (isCutOff(raw)) {
      onError(disconnected())
      return
    }
    const body = list.join()
    list.clear()
    if (body.length > 0) list.add(body)
    beginning.isWhole = true
    finish(() => resolve(body))
  }
  const onError = (error: Error): void => finish(() => reject(error))
  const onClose = (): void => onError(disconnected())
  const finish = (then: () => void): void => {
    raw.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
    then()
  }
  raw.on('data', onData).once('end', onEnd).once('error', onError).once('close', onClose).resume()
  return promise
}
