import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { HTTPMethod } from 'find-my-way'
import FindMyWay from 'find-my-way'
import type { MatchConstraint } from './match.ts'
import { matchStrategy } from './match.ts'

const NotFound = createError('JW_NO_ROUTE', 'No route matches this request', 404)
const MethodNotAllowed = createError('JW_METHOD_NOT_ALLOWED', 'No route takes the method %s here', 405)

interface Entry {
  readonly url: string
  readonly methods: readonly string[]
  readonly constraint: MatchConstraint | null
}

/**
 * Tells a wrong path (404) from a wrong method (405, with Allow). Fastify's router keeps a tree per method and
 * cannot be asked for the others, so this one is asked after a miss; no routed request comes here.
 */
export function allowedMethods(entries: readonly Entry[]) {
  const router = FindMyWay({
    ignoreDuplicateSlashes: true,
    maxParamLength: 65_536,
    constraints: { match: matchStrategy }
  })
  const methods = [...new Set(entries.flatMap((entry) => entry.methods))].sort() as HTTPMethod[]
  for (const { url, methods: own, constraint } of entries) {
    router.on(own as HTTPMethod[], url, { constraints: constraint ? { match: constraint } : {} } as never, () => {})
  }
  return (request: FastifyRequest, reply: FastifyReply): void => {
    const path = request.raw.url!
    const allowed = methods.filter((method) => router.find(method, path, { match: request.raw } as never) !== null)
    if (allowed.length === 0) throw new NotFound()
    reply.header('allow', allowed.join(', '))
    throw new MethodNotAllowed(request.method)
  }
}
