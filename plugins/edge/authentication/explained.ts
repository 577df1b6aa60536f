/** Texts of `explain` about methods of authentication: judgements on the credentials of an example, without any effect. */
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Example } from '../concern.ts'
import type { ConsumerRegistry } from '../consumers/registry.ts'
import type { Method } from './method.ts'

/** Returns an example as methods read requests. It has no body and no connection. */
export function requestOf({ method, target, headers, ip }: Example): FastifyRequest {
  const named = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const rawHeaders = Object.entries(headers).flat()
  const raw = { method, url: target, headers: named, rawHeaders, httpVersion: '1.1', httpVersionMajor: 1, socket: {} }
  const request = { raw: raw as unknown as IncomingMessage, method, headers: named, ip, consumer: null }
  return request as unknown as FastifyRequest
}

/** Returns the text about a request without credentials. `--consumer` stands for them. */
export const withoutCredentials = ({ consumer }: Example, reason: string): string | null =>
  consumer === null ? `does not accept: ${reason}` : null

/** Returns the text about the credentials of an example. `without`: reason for a request without any. */
export function explainCredentials<C>(
  example: Example,
  without: string,
  find: (request: FastifyRequest) => C | null,
  judge: (credentials: C, consumers: ConsumerRegistry, request: FastifyRequest) => string
): string | null {
  const request = requestOf(example)
  const found = find(request)
  if (found === null) return withoutCredentials(example, without)
  return example.consumers === undefined
    ? 'the declared consumers are not known here'
    : judge(found, example.consumers, request)
}

/** Returns the text about credentials that a method verifies at once. */
export function judgementOf<C>(method: Method<C>, credentials: C, request: FastifyRequest): string {
  try {
    void method.verify(credentials, request, null)
    return `accepts ${request.consumer?.id}`
  } catch (error) {
    return `does not accept: ${method.refusal(error, request).reason}`
  }
}
