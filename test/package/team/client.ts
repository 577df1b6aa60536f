/** The client of a mesh, without a gateway. */
import { createMesh } from 'jingwei/mesh'

const { ORDERS_URL = '' } = process.env

const mesh = createMesh({
  mesh: { timeout: '3s', retry: { attempts: 1, on: ['connect-failure'] } },
  services: { orders: { instances: [ORDERS_URL] } }
})
const { statusCode, body } = await mesh.request({ origin: 'http://orders.mesh', path: '/orders', method: 'GET' })
console.log(statusCode, await body.text())
await mesh.close()
