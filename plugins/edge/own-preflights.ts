/**
 * OPTIONS routes for the preflights of plugins' own routes, if a concern such as CORS responds to them. Preflights of
 * configured routes are matched by the route table.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { mountPoint } from '../../config/path-reading.ts'
import { constraintKey } from '../constraint-key.ts'
import type { EdgeRoute } from './attach.ts'

export class OwnPreflights {
  readonly #fastify: FastifyInstance
  /** Methods of the routes, by path and constraints. The lists are read at each preflight, so methods may be added later. */
  readonly #methods = new Map<string, string[]>()

  constructor(fastify: FastifyInstance) {
    this.#fastify = fastify
  }

  /** Adds an OPTIONS route for the preflights of `route`. If one exists for the path, adds the methods of `route` to it. */
  add({ method, url, constraints = {} }: RouteOptions, ownRoute: EdgeRoute): void {
    const methods = [method].flat()
    const key = url + constraintKey(constraints)
    const known = this.#methods.get(key)
    if (known !== undefined) {
      known.push(...methods)
      return
    }
    this.#methods.set(key, methods)
    const path = url.slice(mountPoint(this.#fastify).length)
    if (methods.includes('OPTIONS') || this.#fastify.hasRoute({ url, method: 'OPTIONS', constraints })) return
    this.#fastify.route({
      method: 'OPTIONS',
      url: path,
      constraints,
      config: { preflightFor: methods, ownRoute },
      handler: (_request, reply) => void reply.callNotFound()
    })
  }
}
