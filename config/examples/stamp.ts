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

export default async function stamp(fastify: FastifyInstance, { header = 'x-stamp' }: { header?: string }) {
  fastify.addHook('onRoute', (routeOptions) => {
    const { stamp: value } = (routeOptions.config ?? {}) as { stamp?: unknown }
    if (value === undefined) return
    // At load, so that a slip stops the start and not a request.
    if (typeof value !== 'string') throw new Error(`config.stamp of ${routeOptions.url} is not a text`)

    const add = (_request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      reply.header(header, value)
      done()
    }
    // After the hooks that the edge's concerns gave this route; a new list, since routes may share one.
    routeOptions.onRequest = [...[routeOptions.onRequest ?? []].flat(), add]
  })
}
