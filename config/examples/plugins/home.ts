/** A page's data in one response, of two services that are asked at the same time. */
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
