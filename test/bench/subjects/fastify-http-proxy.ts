// Bare @fastify/http-proxy, as its README has it: what all others are measured against.
import httpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'

const app = Fastify()
await app.register(httpProxy, { upstream: process.env.ORIGIN! })
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
