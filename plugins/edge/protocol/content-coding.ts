/** Removes the content coding of bodies that are in memory. */
import zlib from 'node:zlib'
import type { FastifyRequest } from 'fastify'
import { headerValues } from '../authentication/credentials.ts'

/** Returns the codings of the request body, of all fields; empty for none. Of several fields of HTTP/2, Node shows the first only. */
export const codingsField = (request: FastifyRequest): string => headerValues(request, 'content-encoding').join(', ')

/** Returns whether the request body has a coding other than `identity`. */
export const isEncoded = (request: FastifyRequest): boolean => !/^(?:identity)?$/i.test(codingsField(request))

/**
 * Calls back with a body without its content coding; with a fault if the coding is unknown, or if the body is malformed or
 * larger than `maxOutputLength`.
 */
export function decoded(
  bytes: Buffer,
  field: unknown,
  maxOutputLength: number,
  done: (fault: string, plain: Buffer | null) => void
): void {
  const coding = String(field ?? 'identity').toLowerCase()
  const back = (error: Error | null, plain: Buffer): void =>
    error === null ? done('', plain) : done('the content coding cannot be decoded within the limit', null)
  if (coding === 'identity') done('', bytes)
  else if (coding === 'gzip' || coding === 'x-gzip') zlib.gunzip(bytes, { maxOutputLength }, back)
  else if (coding === 'br') zlib.brotliDecompress(bytes, { maxOutputLength }, back)
  else if (coding === 'deflate') zlib.inflate(bytes, { maxOutputLength }, back)
  else if (coding === 'zstd') zlib.zstdDecompress(bytes, { maxOutputLength }, back)
  else done('the content coding is not known', null)
}
