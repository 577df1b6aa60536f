/**
 * The BFF of the decentralised model: a Fastify server with the gateway in it.
 *
 *   node config/examples/bff/bff.ts [CONFIGURATION]
 */
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import { gateway, loadConfig, serve, serverOptions } from 'jingwei'
import pages from './pages.ts'

const config = await loadConfig(process.argv[2] ?? `${import.meta.dirname}/decentralised.yaml`)
const bff = Fastify(serverOptions(config))
// `fp`: for the whole server, so that the edge guards the BFF's own routes, too.
await bff.register(fp(gateway), config)
await bff.register(pages, { model: 'decentralised' })
await serve(bff, config)
