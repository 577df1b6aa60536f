/** Reads the request body of a composed route as JSON. */
import type { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import { ChunkList } from '../../plugins/chunk-list.ts'
import { BodyNotJson, BodyTooLarge, WrongType } from './errors.ts'
import { parseJson } from './json.ts'

const json = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i

/** Returns the value of the body; undefined if it is empty. The body is not parsed before: on routes it is a stream. */
export async function bodyOf(request: FastifyRequest, maxSize: number): Promise<unknown> {
  const body = request.body as Readable | null | undefined
  if (!body) return undefined
  if (Number(request.headers['content-length'] ?? 0) > maxSize) throw new BodyTooLarge(maxSize)
  const bytes = await read(body, request, maxSize)
  if (bytes.length === 0) return undefined
  const { 'content-type': type = '', 'content-encoding': coding } = request.raw.headers
  if (!json.test(type) || coding !== undefined) throw new WrongType()
  return parseJson(bytes.toString(), (why) => new BodyNotJson(why))
}

/**
 * Reads a stream by `data` events. By them alone, and not by an iterator, the time limits for slow bodies see that the
 * gateway waits for the client.
 */
function read(body: Readable, { raw }: FastifyRequest, maxSize: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const list = new ChunkList()
    const onData = (chunk: Buffer) => {
      if (list.size + chunk.length > maxSize) settle(() => reject(new BodyTooLarge(maxSize)))
      else list.add(chunk)
    }
    const onEnd = () => settle(() => resolve(list.join()))
    const onError = (error: Error) => settle(() => reject(error))
    // A body that is counted does not end when the client disconnects.
    const onClose = () => settle(() => reject(new Error('the client disconnected within its body')))
    const settle = (end: () => void) => {
      body.off('data', onData).off('end', onEnd)
      raw.off('close', onClose)
      end()
    }
    // Stays, since an error without a listener would end the process.
    body.on('error', onError).on('data', onData).once('end', onEnd)
    // A body that a concern has read is whole; the request closes all the same.
    if (body === raw || !raw.readableEnded) raw.once('close', onClose)
  })
}
