/** The BFF's own routes: a web page, and the data that it shows, from three services. The same in both models. */
import { readFile } from 'node:fs/promises'
import type { FastifyInstance } from 'fastify'
import type {} from 'jingwei/mesh/fastify'

export interface PagesOptions {
  /** Name of the model, for the page. */
  readonly model: string
}

interface Orders {
  readonly orders: readonly { readonly id: number; readonly product: string; readonly quantity: number }[]
}
interface Products {
  readonly products: readonly { readonly id: string; readonly price: number }[]
}

export default async function pages(fastify: FastifyInstance, { model }: PagesOptions) {
  const page = await readFile(`${import.meta.dirname}/page.html`, 'utf8')
  // Without a gateway in the server, Fastify ignores this.
  const config = { guarded: true } // the top-level edge of the configuration applies

  fastify.get('/', { config }, (_request, reply) => reply.type('text/html; charset=utf-8').send(page))

  fastify.get<{ Params: { user: string } }>('/home/:user', { config }, async ({ mesh, params }) => {
    const user = encodeURIComponent(params.user)
    const [{ orders }, { products }] = await Promise.all([
      mesh.json<Orders>('orders', `/?user=${user}`),
      mesh.json<Products>('products', '/')
    ])
    const prices = new Map(products.map(({ id, price }) => [id, price]))
    const lines = orders.map((order) => ({ ...order, total: order.quantity * (prices.get(order.product) ?? 0) }))
    return { user: params.user, orders: lines, servedBy: { model, pid: process.pid } }
  })
}
