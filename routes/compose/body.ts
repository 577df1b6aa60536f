/** Reads the request body of a composed route as JSON. */
import type { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import { BodyNotJson, BodyTooLarge, WrongType } from './errors.ts'
import { parseJson } from './part.ts'

const json = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i

/** Returns the value of the body; undefined if it is empty. The body is not parsed before: on routes it is a stream. */
export async function bodyOf(request: FastifyRequest, maxSize: number): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  const body = request.body as Readable | null | undefined
  if (!body) return undefined
  if (Number(request.headers['content-length'] ?? 0) > maxSize) throw new BodyTooLarge(maxSize)
  for await (const chunk of body) {
    size += (chunk as Buffer).length
    if (size > maxSize) throw new BodyTooLarge(maxSize)
    chunks.push(chunk as Buffer)
  }
  if (size === 0) return undefined
  const { 'content-type': type = '', 'content-encoding': coding } = request.raw.headers
  if (!json.test(type) || coding !== undefined) throw new WrongType()
  return parseJson(Buffer.concat(chunks).toString(), (why) => new BodyNotJson(why))
}
