/**
 * Three small services for trying the gateway out, as a plugin of it: they start and stop with it, and go on over reloads.
 *
 *   plugins:
 *     - path: ./examples/services.ts
 *       options: { orders: [9101, 9102], products: [9103], users: [9104] }    # name: ports
 */

import type { Server } from 'node:http'
import { createServer } from 'node:http'
import type { FastifyInstance } from 'fastify'

/** Items of each service. */
export const items: Record<string, unknown[]> = {
  orders: [
    { id: 1, product: 'tea', quantity: 2 },
    { id: 2, product: 'ink', quantity: 1 }
  ],
  products: [
    { id: 'tea', price: 4.5 },
    { id: 'ink', price: 9 }
  ],
  users: [{ id: 'alice' }, { id: 'bob' }]
}

/** A service that lists its items, and says which instance answered and who it was told is calling. */
export function serve(name: string, port: number): Promise<Server> {
  const server = createServer((request, response) => {
    const user = request.headers['x-user-id']
    response.setHeader('content-type', 'application/json')
    response.end(`${JSON.stringify({ service: name, port, path: request.url, user, [name]: items[name] ?? [] })}\n`)
  })
  return new Promise((resolve, reject) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => {
      const advice = `name another port in "options" and in services.${name}.instances, or set the variable of both`
      reject(new Error(`the service ${name} cannot listen on 127.0.0.1:${port} (${code}); ${advice}`))
    })
    server.listen(port, '127.0.0.1', () => resolve(server))
  })
}

/** Closes a service, if it could listen. */
async function end(serving: Promise<Server>): Promise<void> {
  const server = await serving.catch(() => null)
  if (server !== null) await new Promise((resolve) => server.close(resolve).closeAllConnections())
}

export default async function services(
  fastify: FastifyInstance,
  ports: Record<string, (number | string)[]>
): Promise<void> {
  // `check` may run beside the gateway that has the ports.
  if (fastify.dryRun) return
  fastify.addHook('onReady', async () => {
    for (const [name, list] of Object.entries(ports)) {
      for (const port of list.map(Number)) {
        // Kept over reloads, since the configuration before serves until this one is ready. It depends on both.
        await fastify.stores.claim('services.server', { name, port }, () => serve(name, port), end)
      }
    }
  })
}
