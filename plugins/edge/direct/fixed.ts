/** Fixed responses, `routes[].response`. */
import { createHash } from 'node:crypto'
import type { RouteHandlerMethod } from 'fastify'
import { contentOf } from '../../../config/content.ts'
import type { FixedResponseConfig } from '../../../config/schema/direct.ts'
import { matchesTag } from '../protocol/entity-tags.ts'

/** Returns the handler that sends a fixed response. All that does not depend on the request is computed once. */
export function fixedResponse(options: FixedResponseConfig): RouteHandlerMethod {
  const { status, headers = {}, etag } = options
  const content = contentOf(options)
  const fields = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const hasTag = etag && status === 200 && content !== null
  if (hasTag) fields.etag ??= `"${createHash('sha256').update(content.bytes).digest('base64url').slice(0, 22)}"`
  const ofBody = content === null ? {} : { 'content-type': content.type }
  return function respond(request, reply) {
    request.isOwnResponse = true
    const { method } = request.raw
    const isSafe = method === 'GET' || method === 'HEAD'
    if (hasTag && isSafe && matchesTag(request.headers['if-none-match'], fields.etag!)) {
      reply.code(304).headers(fields).send()
    } else {
      reply.code(status).headers(fields).headers(ofBody)
      if (content === null) reply.send()
      else reply.send(content.bytes)
    }
    return reply
  }
}

/** Returns the response for `explain`: `200, text/plain; charset=utf-8, 2 bytes`. */
export function fixedText(options: FixedResponseConfig): string {
  const content = contentOf(options)
  return content === null
    ? `${options.status}, no body`
    : `${options.status}, ${content.type}, ${content.bytes.length} bytes`
}
