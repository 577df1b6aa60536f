/** Reads the body of a call's response within bounds. */
import { isUtf8 } from 'node:buffer'
import { promisify } from 'node:util'
import type { FastifyRequest } from 'fastify'
import { NotJson, TooLarge } from './errors.ts'
import { parseJson } from './json.ts'
import { listField } from './response-fields.ts'

type Response = Awaited<ReturnType<FastifyRequest['mesh']['request']>>

interface PartOptions {
  readonly name: string
  readonly as: 'json' | 'text'
  readonly maxSize: number
}

export interface Part {
  readonly body: unknown
  readonly bytes: number
}

/** Reads a body; an empty one is null. */
export async function readPart(response: Response, { name, as, maxSize }: PartOptions): Promise<Part> {
  const sent = Buffer.from(await response.body.arrayBuffer())
  const codings = listField(response.headers, 'content-encoding').toLowerCase().split(',')
  const coding = codings.map((each) => each.trim()).filter((each) => each !== '' && each !== 'identity')
  const bytes = coding.length === 0 ? sent : await decoded(sent, coding.join(', '), name, maxSize)
  if (bytes.length === 0) return { body: null, bytes: 0 }
  if (!isUtf8(bytes)) throw new NotJson(name, 'the body is not UTF-8')
  const text = bytes.toString()
  return { body: as === 'text' ? text : parseJson(text, (why) => new NotJson(name, why)), bytes: bytes.length }
}

/** Decodes a body whose service ignores `Accept-Encoding: identity`. */
async function decoded(bytes: Buffer, coding: string, name: string, maxSize: number): Promise<Buffer> {
  const { gunzip, inflate, brotliDecompress } = await import('node:zlib')
  const decode = { gzip: gunzip, 'x-gzip': gunzip, deflate: inflate, br: brotliDecompress }[coding]
  if (decode === undefined) throw new NotJson(name, 'the body has an unknown content coding')
  if (bytes.length === 0) return bytes
  try {
    return await promisify<Buffer, { maxOutputLength: number }, Buffer>(decode)(bytes, { maxOutputLength: maxSize })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw new TooLarge(name, maxSize)
    throw new NotJson(name, `the body is not valid ${coding}`)
  }
}
