// http-proxy-middleware on Express, as in its README, with an agent that keeps connections to the service open.

import type { AgentOptions, RequestListener, Server } from 'node:http'
import { Agent } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'

interface App {
  use(middleware: RequestListener): void
  listen(port: number, host: string): Server
}

const require = createRequire(join(process.env.PACKAGES!, 'package.json'))
const express: () => App = require('express')
const {
  createProxyMiddleware
}: { createProxyMiddleware(options: object): RequestListener } = require('http-proxy-middleware')

const keepAlive: AgentOptions = { keepAlive: true }
const app = express()
app.use(createProxyMiddleware({ target: process.env.ORIGIN!, changeOrigin: true, agent: new Agent(keepAlive) }))
// The default keepAliveTimeout of Node would close the idle connections.
app.listen(Number(process.env.PORT), '127.0.0.1').keepAliveTimeout = 75_000
