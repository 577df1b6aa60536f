/**
 * Routes for the preflights of plugins' own routes, where a concern answers them. Preflights of configured routes are
 * found by the route table.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { mountPoint } from '../../config/path-reading.ts'
import { constraintKey } from '../constraint-key.ts'
import type { EdgeRoute } from './attach.ts'

export class OwnPreflights {
  readonly #fastify: FastifyInstance
  /** By path and constraints, the methods of the routes: read at each preflight, so that later ones are among them. */
  readonly #methods = new Map<string, string[]>()

  constructor(fastify: FastifyInstance) {
    this.#fastify = fastify
  }

  /** Adds a route of OPTIONS for those of `route`, with these concerns, or the methods of `route` to those of an earlier one. */
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
