/**
 * An edge plugin: adds a header to the responses of the routes that ask for it, and to no others.
 *
 *   plugins:
 *     - path: ./stamp.ts
 *       options: { header: x-stamp }        # which header
 *   routes:
 *     - name: orders
 *       config: { stamp: fresh }            # what it says on this route
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** The keys of `routes[].config` that it reads: the gateway checks their values, and refuses keys that no plugin reads. */
export const routeConfig = { stamp: { type: 'string', minLength: 1 } }

export default async function stamp(fastify: FastifyInstance, { header = 'x-stamp' }: { header?: string }) {
  fastify.addHook('onRoute', (routeOptions) => {
    const { stamp: value } = (routeOptions.config ?? {}) as { stamp?: string }
    if (value === undefined) return

    const add = (_request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      reply.header(header, value)
      done()
    }
    // After the hooks that the edge's concerns gave this route; a new list, since routes may share one.
    routeOptions.onRequest = [...[routeOptions.onRequest ?? []].flat(), add]
  })
}
