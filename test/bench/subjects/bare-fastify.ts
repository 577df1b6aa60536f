// Fastify with one route and no proxy: the cost of a connection in the framework.
import Fastify from 'fastify'

const app = Fastify()
app.get('/small', async () => ({ hello: 'world' }))
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
