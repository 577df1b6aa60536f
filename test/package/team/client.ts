/** The client of a mesh, without a gateway. */
import { createMesh, installFetch } from 'jingwei/mesh'

const { ORDERS_URL = '' } = process.env

const mesh = createMesh({
  mesh: { timeout: '3s', retry: { attempts: 1, on: ['connect-failure'] } },
  services: { orders: { instances: [ORDERS_URL] } }
})
await mesh.ready({ timeout: '5s' })
const { statusCode, body } = await mesh.request({ origin: 'http://orders.mesh', path: '/orders', method: 'GET' })
console.log(statusCode, await body.text())

const print = async (response: Response) => console.log(response.status, await response.text())
await print(await mesh.fetch('http://orders.mesh/orders'))
const uninstall = installFetch(mesh)
await print(await fetch('http://orders.mesh/orders'))
uninstall()
await mesh.close()
