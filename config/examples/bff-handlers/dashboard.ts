/** A page of several services: the user is required, orders and recommendations are not. */
import type { FastifyInstance } from 'fastify'
import type { TypeBoxTypeProvider } from 'jingwei/plugin'
import { optional, parallel, Type } from 'jingwei/plugin'

const Order = Type.Object({ id: Type.Integer(), product: Type.String(), price: Type.Optional(Type.Number()) })

/** The response schema types the handler, and drops every other member of the services' responses. */
const Dashboard = Type.Object({
  user: Type.Object({ id: Type.String(), name: Type.String() }),
  orders: Type.Array(Order),
  recommended: Type.Array(Type.String()),
  missing: Type.Array(Type.String())
})

interface User {
  id: string
  name: string
}
interface Product {
  id: string
  price: number
}

export default async function dashboard(fastify: FastifyInstance, { deadlineMs = 1000 }: { deadlineMs?: number }) {
  const params = Type.Object({ user: Type.String({ pattern: '^[a-z]+$' }) })
  const edge = { rateLimit: { max: 50, window: '1m' } } // as in routes[].edge
  const options = { schema: { params, response: { 200: Dashboard } }, config: { edge } }

  fastify.withTypeProvider<TypeBoxTypeProvider>().get('/dashboard/:user', options, async (request, reply) => {
    const { user } = request.params
    const { data, missing, errors } = await request.mesh.within(deadlineMs, (mesh) =>
      parallel(mesh, {
        user: (mesh) => mesh.json<User>('users', `/users/${user}`),
        // In sequence: the prices of the products that were ordered.
        orders: optional([], async (mesh) => {
          const orders = await mesh.json<{ id: number; product: string }[]>('orders', `/orders?user=${user}`)
          const ids = orders.map(({ product }) => encodeURIComponent(product)).join(',')
          const products = await mesh.json<Product[]>('products', `/products?ids=${ids}`)
          const prices = new Map(products.map(({ id, price }) => [id, price]))
          return orders.map((order) => {
            const price = prices.get(order.product)
            return { ...order, ...(price !== undefined && { price }) }
          })
        }),
        recommended: optional([], (mesh) => mesh.json<string[]>('products', `/recommended?user=${user}`))
      })
    )
    if (missing.length > 0) {
      request.log.warn({ missing, errors }, 'the dashboard is incomplete')
      reply.header('cache-control', 'no-store')
    }
    return { ...data, missing: [...missing] }
  })
}
