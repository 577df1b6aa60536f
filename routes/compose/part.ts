/** Reads the body of a call's response within bounds. */
import { isUtf8 } from 'node:buffer'
import { promisify } from 'node:util'
import type { FastifyRequest } from 'fastify'
import { NotJson, TooLarge } from './errors.ts'

type Response = Awaited<ReturnType<FastifyRequest['mesh']['request']>>

/** Most levels of lists and objects in a body: `JSON.stringify` would exceed the stack with some thousands. */
const deepest = 128

export interface PartOptions {
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
  const coding = String(response.headers['content-encoding'] ?? 'identity')
    .trim()
    .toLowerCase()
  const bytes = coding === 'identity' ? sent : await decoded(sent, coding, name, maxSize)
  if (bytes.length === 0) return { body: null, bytes: 0 }
  if (!isUtf8(bytes)) throw new NotJson(name, 'the body is not UTF-8')
  const text = bytes.toString()
  return { body: as === 'text' ? text : parseJson(text, (why) => new NotJson(name, why)), bytes: bytes.length }
}

/** Parses JSON of bounded depth. `fault` makes the error. */
export function parseJson(text: string, fault: (why: string) => Error): unknown {
  if (isTooDeep(text)) throw fault(`more than ${deepest} levels`)
  try {
    // RFC 8259, 8.1: a byte order mark may be ignored.
    return JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text)
  } catch {
    throw fault('malformed')
  }
}

const quote = 0x22
const backslash = 0x5c

function isTooDeep(text: string): boolean {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === quote) at = endOfString(text, at)
    else if (code === 0x5b || code === 0x7b) {
      depth++
      if (depth > deepest) return true
    } else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}

/** Returns the index of the quote that ends a string. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let escapes = 0
    while (text.charCodeAt(at - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return at
  }
  return text.length
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
