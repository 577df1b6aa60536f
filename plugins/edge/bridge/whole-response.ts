/** Responses of services that are read as a whole: asks for them, and changes their header section for another body. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { removeHeader } from '../authentication/credentials.ts'
import { restoreTags, tagOfUnchanged, weak } from '../protocol/entity-tags.ts'
import { digests } from './response-fields.ts'
import { addUpstreamHeader } from './upstream-headers.ts'

/** Asks the service for the whole body, without a content coding. The client's fields stay readable for concerns that compress. */
export function askForWhole(request: FastifyRequest, isBridged: boolean): void {
  request.mayGetOtherBytes = true
  restoreTags(request.raw)
  for (const name of ['range', 'if-range']) removeHeader(request, name)
  if (!isBridged) return
  request.removedHeaders ??= new Set()
  request.removedHeaders.add('accept-encoding')
  addUpstreamHeader(request, 'accept-encoding', 'identity')
}

/** Fields that are true only for the bytes of the service. */
const ofBytes = ['content-length', 'content-encoding', 'content-range', 'accept-ranges', ...digests]

/** Removes the fields that describe the bytes of the service, and makes the entity tag a weak one (RFC 9110, 8.8.3.3). */
export function relabel(reply: FastifyReply): void {
  // Asking is faster than removing a field that is not there.
  for (const name of ofBytes) if (reply.hasHeader(name)) reply.removeHeader(name)
  const tag = reply.getHeader('etag')
  if (typeof tag === 'string') reply.header('etag', weak(tag))
}

/** Gives a 304 the weak entity tag by which the client asked. */
export function relabelUnchanged(request: FastifyRequest, reply: FastifyReply): void {
  const tag = tagOfUnchanged(request, reply.getHeader('etag'))
  if (tag !== null) reply.header('etag', tag)
}

/** Returns the body of a payload that is a web `Response`, whose status and fields the reply gets, as Fastify does later. */
export function unpacked(payload: unknown, reply: FastifyReply): unknown {
  if (!(payload instanceof Response)) return payload
  reply.code(payload.status)
  for (const [name, value] of payload.headers) reply.header(name, value)
  return payload.body
}
