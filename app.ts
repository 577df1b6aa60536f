/**
 * Jingwei: an API gateway in two halves that never mix. This file puts them together and nothing else.
 *
 *   operations   what watches and runs both
 *   mesh         how the gateway reaches services                    east-west
 *   edge         who may come in, and with what                      north-south
 *   plugins      the user's own
 *   the bridge   the one place where the edge calls the mesh
 *   routes       what is exposed, and the admin port's pages
 */
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from './config/schema.ts'
import bridge from './plugins/edge/forward.ts'
import edge, { edgeConcerns } from './plugins/edge/index.ts'
import { serverOptions } from './plugins/edge/listener.ts'
import mesh from './plugins/mesh/index.ts'
import { banner } from './plugins/operations/banner.ts'
import { run } from './plugins/operations/cli.ts'
import { stopOnSignals } from './plugins/operations/drain.ts'
import operations from './plugins/operations/index.ts'
import { loggerOptions } from './plugins/operations/logging.ts'
import userPlugins from './plugins/operations/user-plugins.ts'
import adminRoutes from './routes/admin.ts'
import healthRoutes from './routes/health.ts'
import metricsRoutes from './routes/metrics.ts'
import proxyRoutes from './routes/proxy.ts'

/** The gateway as a Fastify plugin, for a server of your own to register. */
export async function gateway(fastify: FastifyInstance, config: Config): Promise<void> {
  await fastify.register(operations, config)
  await fastify.register(mesh, config)
  await fastify.register(edge, config)
  await fastify.register(userPlugins, config)
  await fastify.register(bridge, config)
  await fastify.register(proxyRoutes, config)

  const { admin } = fastify
  if (admin !== null) {
    await admin.register(healthRoutes, { gateway: fastify })
    await admin.register(metricsRoutes, { gateway: fastify })
    await admin.register(adminRoutes, { gateway: fastify, config })
  }
}

/** A server of its own with the gateway in it; it does not listen yet. */
export function build(config: Config, options: { logger?: boolean } = {}): FastifyInstance {
  const logger = options.logger === false ? false : loggerOptions()
  const server = Fastify({ ...serverOptions(config), logger })
  // Wrapped, since `fp` marks the function that it is given, and `gateway` is for others to encapsulate.
  server.register(fp((fastify: FastifyInstance) => gateway(fastify, config)))
  return server
}

/** Builds, listens on both ports, and stops in order on SIGTERM. */
export async function start(config: Config, command = 'node app.ts'): Promise<FastifyInstance> {
  const server = build(config)
  try {
    await server.ready()
    if (config.admin !== false) await server.admin!.listen({ ...config.admin })
    await server.listen({ host: config.listen.host, port: config.listen.port })
  } catch (error) {
    await server.close()
    throw error
  }
  stopOnSignals(server, config)
  const scheme = config.listen.tls === undefined ? 'http' : 'https'
  const admin = server.admin === null ? null : address('http', server.admin)
  process.stderr.write(banner(config, address(scheme, server), admin, command))
  return server
}

/** How a person on this machine reaches a listening server. */
function address(scheme: string, server: FastifyInstance): string {
  const { address, port } = server.server.address() as AddressInfo
  const host = address === '0.0.0.0' || address === '::' ? '127.0.0.1' : address
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`
}

if (import.meta.main) {
  const code = await run(process.argv.slice(2), { build, start, edgeConcerns })
  if (code !== null) process.exitCode = code
}
