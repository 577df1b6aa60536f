/**
 * An edge plugin that adds a header to the responses of routes with `config.stamp`.
 *
 *   plugins:
 *     - path: ./stamp.ts
 *       options: { header: x-stamp }        # name of the header
 *   routes:
 *     - name: orders
 *       config: { stamp: fresh }            # its value on this route
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** Keys of `routes[].config` that the plugin reads. The gateway validates their values and rejects keys that no plugin reads. */
export const routeConfig = { stamp: { type: 'string', minLength: 1 } }

export default async function stamp(fastify: FastifyInstance, { header = 'x-stamp' }: { header?: string }) {
  fastify.addHook('onRoute', (routeOptions) => {
    const { stamp: value } = (routeOptions.config ?? {}) as { stamp?: string }
    if (value === undefined) return

    const add = (_request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      reply.header(header, value)
      done()
    }
    // Appended after the hooks of the edge concerns, in a new list, since routes may share one.
    routeOptions.onRequest = [...[routeOptions.onRequest ?? []].flat(), add]
  })
}
