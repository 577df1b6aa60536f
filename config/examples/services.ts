/**
 * Three small services for trying out the gateway, as a plugin: they start and stop with it, and survive reloads.
 *
 *   plugins:
 *     - path: ./examples/services.ts
 *       options: { orders: [9101, 9102], products: [9103], users: [9104] }    # name: ports
 */

import type { Server } from 'node:http'
import { createServer } from 'node:http'
import type { FastifyInstance } from 'fastify'

/** Items of the services. */
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

/** Creates a service that responds with its items, its instance, and the caller according to the gateway's headers. */
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

/** Closes a service, if it listens. */
async function end(serving: Promise<Server>): Promise<void> {
  const server = await serving.catch(() => null)
  if (server !== null) await new Promise((resolve) => server.close(resolve).closeAllConnections())
}

export default async function services(
  fastify: FastifyInstance,
  ports: Record<string, (number | string)[]>
): Promise<void> {
  // A running gateway may use the ports while `check` runs.
  if (fastify.dryRun) return
  fastify.addHook('onReady', async () => {
    for (const [name, list] of Object.entries(ports)) {
      for (const port of list.map(Number)) {
        // Kept over reloads, since the previous configuration serves until this one is ready. The key has all that it depends on.
        await fastify.stores.claim('services.server', { name, port }, () => serve(name, port), end)
      }
    }
  })
}
