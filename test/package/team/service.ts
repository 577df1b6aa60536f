/** The mesh in a Fastify server of the team's own, without a gateway. */
import Fastify from 'fastify'
import type { FastifyMeshOptions } from 'jingwei/mesh/fastify'
import mesh from 'jingwei/mesh/fastify'

const { ORDERS_URL = '' } = process.env

const options: FastifyMeshOptions = { services: { orders: { instances: [ORDERS_URL] } } }
const fastify = Fastify()
await fastify.register(mesh, options)
fastify.get('/orders', async (request) => {
  const order = await request.mesh.json<{ url: string }>('orders', '/mine')
  return { url: order.url, status: (await fastify.mesh.fetch('http://orders.mesh/')).status }
})
console.log((await fastify.inject('/orders')).body)
await fastify.close()
