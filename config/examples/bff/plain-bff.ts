/**
 * The BFF of the central model: a plain Fastify server behind a gateway. The mesh is a library in it.
 *
 *   PORT=9100 node config/examples/bff/plain-bff.ts
 */
import Fastify from 'fastify'
import { createMesh } from 'jingwei/mesh'
import pages from './pages.ts'

const { PORT = '9100', ORDERS_PORT = '9101', PRODUCTS_PORT = '9102' } = process.env
const mesh = createMesh({
  mesh: { retry: { attempts: 2, on: ['connect-failure', 'reset'] } },
  services: {
    orders: { instances: [`http://127.0.0.1:${ORDERS_PORT}`] },
    products: { instances: [`http://127.0.0.1:${PRODUCTS_PORT}`] }
  }
})
const bff = Fastify({ logger: { level: 'warn' } })

async function json<T>(service: string, path: string): Promise<T> {
  const { statusCode, body } = await mesh.request({ origin: `http://${service}.mesh`, path, method: 'GET' })
  if (statusCode === 200) return (await body.json()) as T
  await body.dump()
  throw new Error(`${service} responded with status ${statusCode}`)
}

bff.addHook('onClose', () => mesh.close())
await bff.register(pages, { model: 'central', json: (_request, service, path) => json(service, path) })
await bff.listen({ host: '127.0.0.1', port: Number(PORT) })
process.once('SIGTERM', () => void bff.close())
