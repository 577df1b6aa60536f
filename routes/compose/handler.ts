/** The handler of composed routes. */
import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { valueAt } from '../../config/json-pointer.ts'
import { matchesTag } from '../entity-tags.ts'
import { bodyOf } from './body.ts'
import type { Freshness } from './freshness.ts'
import { freshnessOf } from './freshness.ts'
import type { JsonObject } from './members.ts'
import { place } from './members.ts'
import type { Plan } from './plan.ts'
import { weakTag } from './plan.ts'
import type { Results } from './run.ts'
import { run } from './run.ts'

/** Returns the handler of a route. */
export function composed(plan: Plan): RouteHandlerMethod {
  return async (request, reply) => {
    try {
      const body = plan.usesBody ? await bodyOf(request, plan.maxBody) : undefined
      respond(plan, await run(plan, request, body), request, reply)
    } catch (error) {
      // The client has left, or a limit has sent a response.
      if (!reply.sent) throw error
    }
    return reply
  }
}

function respond(plan: Plan, results: Results, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) return
  const { scope, missing } = results
  const isSafe = request.method === 'GET' || request.method === 'HEAD'
  // Templates can fail. They are evaluated before the first field is set, since the error response keeps the fields.
  const text = JSON.stringify(merged(plan, results))
  const own = plan.headers.map(([name, values]) => [name, values(scope)] as const)
  // Caches do not read the body of a GET: its response must not be stored for requests with another body.
  const isCacheable = isSafe && missing.length === 0 && !plan.usesBody
  const caching = isCacheable ? cachingOf(plan, results, request) : { control: 'no-store', vary: [] }
  reply.code(plan.statusIndex === null ? plan.status : scope.responses[plan.statusIndex]!.status)
  reply.header('x-jingwei-complete', String(missing.length === 0))
  if (missing.length > 0) {
    reply.header('x-jingwei-missing', [...missing].sort().join(', '))
    for (const name of missing) plan.missed.get(name)?.inc()
  }
  addVary(reply, caching.vary)
  reply.header('cache-control', caching.control)
  for (const [name, fields] of own) {
    if (name === 'vary') addVary(reply, fields)
    else if (fields.length > 0) reply.header(name, name === 'set-cookie' || fields.length > 1 ? [...fields] : fields[0])
  }
  if (reply.statusCode === 204 || reply.statusCode === 205) {
    reply.send()
    return
  }
  if (isSafe && reply.statusCode === 200 && reply.getHeader('cache-control') !== 'no-store') {
    if (!reply.hasHeader('etag')) reply.header('etag', weakTag(text))
    if (matchesTag(request.headers['if-none-match'], String(reply.getHeader('etag')))) {
      reply.code(304).send()
      return
    }
  }
  reply.type('application/json; charset=utf-8').send(text)
}

/** Merges the parts into one object. */
function merged(plan: Plan, { scope, missing }: Results): unknown {
  const whole: JsonObject = {}
  const isMissing = new Set(missing)
  for (const call of plan.parts) {
    if (!isMissing.has(call.name)) {
      const { body } = scope.responses[plan.calls.indexOf(call)]!
      place(whole, call.place, call.reshape(valueAt(body, call.members)))
    } else if (call.substitute !== null) place(whole, call.place, JSON.parse(call.substitute))
  }
  const shaped = plan.reshape(whole) as JsonObject
  const state = missing.length === 0 ? 'complete' : 'incomplete'
  for (const { when, text } of plan.additions) {
    if (when === 'always' || when === state) place(shaped, [], JSON.parse(text))
  }
  return shaped
}

/** Returns the caching fields of a complete response. */
function cachingOf(plan: Plan, { scope }: Results, request: FastifyRequest): Freshness {
  const parts = scope.responses.flatMap((received) => received?.caching ?? [])
  const isPrivate = plan.isPersonal || request.consumer != null || request.headers.authorization !== undefined
  const { control, vary } = freshnessOf(parts, isPrivate)
  return { control, vary: [...vary, ...plan.vary] }
}

/** Adds names to `Vary`, which a concern may have set before. */
function addVary(reply: FastifyReply, names: readonly string[]): void {
  const before = [reply.getHeader('vary') ?? []].flat().map(String)
  const all = [...new Set([...before, ...names])]
  if (all.length > 0) reply.header('vary', all.includes('*') ? '*' : all.join(', '))
}
