/** Bodies that the configuration contains: a text, a value that is sent as JSON, or the bytes of a file. */
import { readFileSync, statSync } from 'node:fs'
import { mediaTypeOf } from './media-types.ts'

/** Largest file of a body, in bytes. */
export const MAX_FILE = 2 ** 20

export interface Content {
  readonly bytes: Buffer
  readonly type: string
}

interface Written {
  readonly body?: string | undefined
  readonly json?: unknown
  readonly file?: string | undefined
  readonly contentType?: string | undefined
}

/** Returns the body that is configured, with its content type; null for none. Throws an error if a file cannot be used. */
export function contentOf({ body, json, file, contentType }: Written): Content | null {
  const made = (bytes: Buffer, type: string) => ({ bytes, type: contentType ?? type })
  if (body !== undefined) return made(Buffer.from(body), 'text/plain; charset=utf-8')
  if (file !== undefined) return made(readSmall(file), mediaTypeOf(file) ?? 'application/octet-stream')
  return json === undefined ? null : made(Buffer.from(JSON.stringify(json)), 'application/json; charset=utf-8')
}

/** Reads a file of at most `max` bytes. */
export function readSmall(file: string, max = MAX_FILE): Buffer {
  const stats = statSync(file)
  // The content of a device or a pipe may have no end.
  if (!stats.isFile()) throw new Error('it is not a file')
  const { size } = stats
  if (size > max) throw new Error(`it has ${size} bytes; ${max} are possible`)
  return readFileSync(file)
}
