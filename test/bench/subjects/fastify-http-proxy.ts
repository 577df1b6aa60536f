// Bare @fastify/http-proxy, as in its README: the baseline of all ratios.
import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'

const app = Fastify()
await app.register(httpProxy, { upstream: process.env.ORIGIN! })
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
