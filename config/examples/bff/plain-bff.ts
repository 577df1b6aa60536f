/**
 * The BFF of the central model: a plain Fastify server behind a gateway. The mesh is a library in it.
 *
 *   PORT=9100 node config/examples/bff/plain-bff.ts
 */
import Fastify from 'fastify'
import mesh from 'jingwei/mesh/fastify'
import pages from './pages.ts'

const { PORT = '9100', ORDERS_PORT = '9101', PRODUCTS_PORT = '9102' } = process.env
const bff = Fastify({ logger: { level: 'warn' } })
// `request.mesh` passes the gateway's request id and trace context on, and aborts calls when the client leaves.
await bff.register(mesh, {
  mesh: { retry: { attempts: 2, on: ['connect-failure', 'reset'] } },
  services: {
    orders: { instances: [`http://127.0.0.1:${ORDERS_PORT}`] },
    products: { instances: [`http://127.0.0.1:${PRODUCTS_PORT}`] }
  }
})
await bff.register(pages, { model: 'central' })
await bff.listen({ host: '127.0.0.1', port: Number(PORT) })
process.once('SIGTERM', () => void bff.close())
