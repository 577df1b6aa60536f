/** Combines the responses of two services, called in parallel, into one response. */
import type { FastifyInstance } from 'fastify'

export default async function home(fastify: FastifyInstance) {
  fastify.get<{ Params: { user: string } }>('/home/:user', async ({ mesh, params }) => {
    const user = encodeURIComponent(params.user)
    const [profile, orders] = await Promise.all([
      mesh.json('users', `/users/${user}`),
      mesh.json('orders', '/orders', { query: { user: params.user } })
    ])
    return { profile, orders }
  })
}
