/** A gateway as a plugin of a Fastify server. */
import Fastify from 'fastify'
import type { Config } from 'jingwei'
import { ConfigError, gateway, loadConfig, parseConfig } from 'jingwei'

const { ORDERS_URL } = process.env
const services = `{ orders: { instances: ["${ORDERS_URL}"] } }`
const routes = '[{ name: orders, match: { path: /orders }, service: orders }]'
const config: Config = parseConfig(`{ admin: false, services: ${services}, routes: ${routes} }`, 'embedded.yaml')

const server = Fastify()
await server.register(gateway, { ...config, prefix: '/api' })
const response = await server.inject('/api/orders')
console.log(response.statusCode, response.body)
await server.close()
await loadConfig('nowhere.yaml').catch((error: unknown) => console.log(error instanceof ConfigError))
