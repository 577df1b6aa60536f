/** Error responses in the shape of GraphQL. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { JsonObject } from '../../strict-json.ts'
import { isObject } from '../../strict-json.ts'
import { persistedQueryErrors } from './refusals.ts'

/** Returns the media type that a client understands; GraphQL over HTTP has its own, which older clients do not name. */
function mediaType({ headers: { accept = '' } }: FastifyRequest): string {
  const type = accept.includes('application/graphql-response+json') ? 'graphql-response+json' : 'json'
  return `application/${type}; charset=utf-8`
}

const bodyOf = (message: unknown, extensions: object) => ({ errors: [{ message, extensions }] })

/**
 * Responds that the gateway does not have a persisted query; the client then sends the whole query. Status 200, as servers of
 * GraphQL do: to some clients another status means that persisted queries do not work at all.
 */
export function respondToMiss(
  reason: keyof typeof persistedQueryErrors,
  request: FastifyRequest,
  reply: FastifyReply
): void {
  const { message, code } = persistedQueryErrors[reason]
  request.isOwnResponse = true
  reply
    .code(200)
    .headers({ 'content-type': mediaType(request), 'cache-control': 'no-store' })
    .send(JSON.stringify(bodyOf(message, { code, requestId: request.id })))
}

/** Hook that changes the body of an error response of the gateway to the shape of GraphQL. */
export function asGraphqlError(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
  done: (error: Error | null, payload: unknown) => void
): void {
  if (reply.statusCode < 400 || !isObject(payload) || !isOfTable(payload, request, reply)) {
    done(null, payload)
    return
  }
  const { message, code, requestId } = payload
  reply.header('content-type', mediaType(request))
  done(null, bodyOf(message, { ...(code !== undefined && { code }), requestId }))
}

/** Returns whether a body is that of the error table, and not one that a plugin has made. */
const isOfTable = ({ statusCode, requestId }: JsonObject, request: FastifyRequest, reply: FastifyReply): boolean =>
  statusCode === reply.statusCode && requestId === request.id
