/** Streams composed of several services: server-sent events for a page, lines of JSON for programs. */
import type { FastifyInstance } from 'fastify'
import { merge, readEvents, readNdjson, sendEvents, sendNdjson } from 'jingwei/plugin'

interface Row {
  id: number
}

export default async function feed(fastify: FastifyInstance) {
  const edge = { rateLimit: { max: 20, window: '1m' } }

  fastify.get('/feed', { config: { edge } }, async ({ mesh }, reply) => {
    // A service that is down fails the request here, before the response begins.
    const [orders, stock] = await Promise.all([
      mesh.stream('orders', '/events', { accept: 'text/event-stream' }),
      mesh.stream('products', '/events', { accept: 'text/event-stream' })
    ])
    const onError = (source: string) => ({ event: 'source-lost', data: { source } })
    const both = merge({ orders: readEvents(orders), stock: readEvents(stock) }, { onError })
    return sendEvents(reply, named(both))
  })

  fastify.get('/export', { config: { edge } }, async ({ mesh }, reply) => {
    const [orders, users] = await Promise.all([mesh.stream('orders', '/all'), mesh.stream('users', '/all')])
    return sendNdjson(reply, merge({ orders: readNdjson<Row>(orders), users: readNdjson<Row>(users) }))
  })
}

type Item = { source: string; value: { data: string } } | { event: string; data: object }

/** Names each event after its service. */
async function* named(items: AsyncIterable<Item>) {
  for await (const item of items) {
    yield 'source' in item ? { event: item.source, data: JSON.parse(item.value.data) as unknown } : item
  }
}
