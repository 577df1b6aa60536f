/** Fixed responses, `routes[].response`. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { RouteHandlerMethod } from 'fastify'
import { mediaTypeOf } from '../../../config/media-types.ts'
import type { FixedResponseConfig } from '../../../config/schema/direct.ts'
import { matchesTag } from '../protocol/entity-tags.ts'

/** The body of a response, and its default content type. */
function contentOf({ body, json, file }: FixedResponseConfig): { bytes: Buffer | null; type: string | null } {
  if (body !== undefined) return { bytes: Buffer.from(body), type: 'text/plain; charset=utf-8' }
  if (file !== undefined) return { bytes: readFileSync(file), type: mediaTypeOf(file) }
  if (json === undefined) return { bytes: null, type: null }
  return { bytes: Buffer.from(JSON.stringify(json)), type: 'application/json; charset=utf-8' }
}

/** Returns the handler that sends a fixed response. All that does not depend on the request is computed once. */
export function fixedResponse(options: FixedResponseConfig): RouteHandlerMethod {
  const { status, headers = {}, contentType, etag } = options
  const { bytes, type = null } = contentOf(options)
  const fields = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const hasTag = etag && status === 200 && bytes !== null
  if (hasTag) fields.etag ??= `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`
  const ofBody = bytes === null ? {} : { 'content-type': contentType ?? type ?? 'application/octet-stream' }
  return function respond(request, reply) {
    request.isOwnResponse = true
    const { method } = request.raw
    const isSafe = method === 'GET' || method === 'HEAD'
    if (hasTag && isSafe && matchesTag(request.headers['if-none-match'], fields.etag!)) {
      reply.code(304).headers(fields).send()
    } else {
      reply.code(status).headers(fields).headers(ofBody)
      if (bytes === null) reply.send()
      else reply.send(bytes)
    }
    return reply
  }
}

/** Returns the response for `explain`: `200, text/plain; charset=utf-8, 2 bytes`. */
export function fixedText(options: FixedResponseConfig): string {
  const { bytes, type } = contentOf(options)
  const { status, contentType } = options
  return bytes === null
    ? `${status}, no body`
    : `${status}, ${contentType ?? type ?? 'application/octet-stream'}, ${bytes.length} bytes`
}
