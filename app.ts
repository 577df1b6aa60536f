/**
 * Jingwei: an API gateway in two separate halves. This file only composes them, in this order:
 *
 *   operations   runtime, logs, metrics, admin port
 *   mesh         calls to services: discovery, balancing, retries    east-west
 *   edge         requests of clients: authentication, limits         north-south
 *   plugins      plugins of the configuration
 *   the bridge   the only code of the edge that calls the mesh
 *   routes       configured routes, and the pages of the admin port
 */
import type { FastifyBaseLogger, FastifyInstance, FastifyServerOptions } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from './config/schema.ts'
import type { Clock } from './plugins/clock.ts'
import { CLOCK } from './plugins/clock.ts'
import { loadConfig, loadSidecar, schemaOf } from './plugins/config.ts'
import { SEALED } from './plugins/edge/async-context.ts'
import bridge from './plugins/edge/bridge/forward.ts'
import proxyClient from './plugins/edge/bridge/proxy-client.ts'
import replyGuard from './plugins/edge/bridge/reply-guard.ts'
import requestMesh from './plugins/edge/bridge/request-mesh.ts'
import requestState from './plugins/edge/bridge/request-state.ts'
import unparsedBodies from './plugins/edge/bridge/unparsed-bodies.ts'
import { directlyFrom } from './plugins/edge/direct/explain.ts'
import direct from './plugins/edge/direct/index.ts'
import errors from './plugins/edge/errors.ts'
import { refuseMissedRoutes } from './plugins/edge/missed-routes.ts'
import { gatewayOptions, serverOptions as optionsOf, socketOptions } from './plugins/edge/protocol/listener.ts'
import { byListener, Peers } from './plugins/edge/protocol/peers.ts'
import { protect } from './plugins/edge/protocol/protection.ts'
import requestTarget from './plugins/edge/protocol/request-target.ts'
import { targetPath } from './plugins/edge/protocol/target-path.ts'
import { curlByName } from './plugins/edge/protocol/tls/example-request.ts'
import { listenerTlsOf } from './plugins/edge/protocol/tls/index.ts'
import keepStores from './plugins/keep-stores.ts'
import type { MeshDependencies } from './plugins/mesh/index.ts'
import { moduleOnFirstUse } from './plugins/on-first-use.ts'
import { about as aboutProcess } from './plugins/operations/about.ts'
import { banner, urlOf } from './plugins/operations/banner.ts'
import { exit, run } from './plugins/operations/cli.ts'
import { logCloseFailure } from './plugins/operations/close-failure.ts'
import type { Stop } from './plugins/operations/drain.ts'
import { createShutdown, handleSignals } from './plugins/operations/drain.ts'
import type { ExplainQuery, Probing } from './plugins/operations/explain.ts'
import { explain, explainText, probedTarget, probeOwnRoutes, probePatterns } from './plugins/operations/explain.ts'
import type { Host } from './plugins/operations/host.ts'
import operations from './plugins/operations/index.ts'
import { createLog, loggerOptions } from './plugins/operations/logging.ts'
import type { RuntimeOptions } from './plugins/operations/runtime.ts'
import { Runtime } from './plugins/operations/runtime.ts'
import { handleUncaught } from './plugins/operations/uncaught.ts'
import userPlugins from './plugins/operations/user-plugins.ts'
import type { Stores } from './plugins/stores.ts'
import { kindOf } from './plugins/thrown.ts'
import { inSlices } from './plugins/time-slices.ts'
import adminRoutes from './routes/admin.ts'
import healthRoutes from './routes/health.ts'
import { countOwnRoutes } from './routes/match.ts'
import metricsRoutes from './routes/metrics.ts'
import proxyRoutes from './routes/proxy.ts'

export { ConfigError } from './config/faults.ts'
export type { Config } from './config/schema.ts'
export { loadConfig, loadWithoutPlugins, parseConfig } from './plugins/config.ts'
export type { Serving } from './plugins/operations/serve.ts'
export { serve } from './plugins/operations/serve.ts'

// Loaded by the first configuration that has them.
const edgeHalf = moduleOnFirstUse<typeof import('./plugins/edge-half.mts')>('plugins/edge-half.mts')
const sidecarHalf = moduleOnFirstUse<typeof import('./plugins/sidecar-half.mts')>('plugins/sidecar-half.mts')
const meshHalf = moduleOnFirstUse<typeof import('./plugins/mesh-half.mts')>('plugins/mesh-half.mts')

/** Returns the edge for a configuration: the gateway's, or that of a sidecar, which has no concerns of its own. */
const edgeOf = ({ isSidecar }: Config) => (isSidecar ? sidecarHalf() : edgeHalf())

/** The gateway as a Fastify plugin, for a server of your own to register with the configuration that `loadConfig` returns. */
export async function gateway(fastify: FastifyInstance, options: Config & { prefix?: string }): Promise<void> {
  assertLoaded('gateway', options)
  if (fastify.hasDecorator('faultOwners')) {
    throw new TypeError(
      'gateway: this server has the gateway already; register it once, with all routes in one configuration'
    )
  }
  // Fastify has applied the prefix. Passed to a plugin below once more, it would be applied twice.
  const { prefix: _applied, ...config } = options
  // Without the admin port and a push, only other code in the server could read the metrics.
  const counts = config.admin !== false || config.metricsPush !== undefined || !fastify.hasDecorator(SEALED)
  if (!fastify.hasDecorator('host')) fastify.decorate('host', null)
  if (!fastify.hasDecorator('dryRun')) fastify.decorate('dryRun', false)
  await fastify.register(operations, { ...config, counts })
  if (config.forward === undefined) await fastify.register(meshHalf().mesh, config)
  else await fastify.register(import('./plugins/forward/index.ts'), config)
  await fastify.register(edgeOf(config).edge, config)
  // In a running gateway, plugins add their routes later.
  if (fastify.host === null) refuseMissedRoutes(fastify)
  await fastify.register(requestState, config)
  await fastify.register(replyGuard)
  if (!config.isSidecar) {
    await fastify.register(requestMesh)
    await fastify.register(proxyClient, config)
    await fastify.register(userPlugins, config)
  }
  await fastify.register(direct, config)
  await fastify.register(bridge, config)
  // The function's name appears in errors of plugins and in spans.
  await fastify.register(async function proxy(proxied) {
    await proxied.register(unparsedBodies)
    await proxyRoutes(proxied, config)
  })

  const { admin } = fastify
  if (admin !== null) {
    await admin.register(healthRoutes, { gateway: fastify })
    await admin.register(metricsRoutes, { gateway: fastify })
    const about = { gateway: fastify, config, targetPath, directlyFrom }
    // Created with the first request to explain, since it registers all routes once more.
    let probing: Probing | undefined
    const explainer = (query: ExplainQuery) => {
      probing ??= createProbe(config, fastify)
      return explain({ ...about, ...probing }, query)
    }
    fastify.addHook('onClose', async () => probing?.probe.close())
    await admin.register(adminRoutes, {
      gateway: fastify,
      config,
      about: () => aboutProcess(config, fastify.host?.lastLoad()),
      reload: fastify.host?.reload ?? null,
      explain: explainer
    })
  }
}

/** Throws for options that no loader has made: without defaults and normalized values, the parts of the gateway would fail. */
function assertLoaded(caller: string, options: Partial<Config> | undefined | null): void {
  if (typeof options?.hash === 'string' && Array.isArray(options.listeners)) return
  const expected = 'the configuration that `await loadConfig(file)` or `parseConfig(text, file)` returns'
  throw new TypeError(`${caller}: expected ${expected}, found ${kindOf(options)}`)
}

/** Creates a server that routes like the gateway but responds with the name of the route; `explain` sends requests to it. */
function createProbe(config: Config, gateway: FastifyInstance): Probing {
  const probe = Fastify({ ...gatewayOptions(config), rewriteUrl: probedTarget, logger: false } as FastifyServerOptions)
  const patterns = probePatterns(probe)
  probe.decorate(
    'listenerOf',
    byListener(config, ({ name }) => name)
  )
  probe.decorate('meter', gateway.meter)
  const peers = new Peers(config)
  probe.decorate('clientAddressOf', (request) => peers.addressOf(request))
  probe.register(errors)
  probe.register(requestTarget, config)
  probe.register(fp((fastify: FastifyInstance) => proxyRoutes(fastify, config)))
  probe.register(async (fastify: FastifyInstance) => probeOwnRoutes(fastify, gateway))
  return { probe, patterns }
}

/**
 * Returns options of Fastify's constructor for a server of your own in which the gateway is registered: limits of its sockets,
 * TLS, trusted proxies and the log, as the configuration sets them for the first listener.
 */
export function serverOptions(config: Config): FastifyServerOptions {
  assertLoaded('serverOptions', config)
  return { ...optionsOf(config), logger: loggerOptions() } as FastifyServerOptions
}

export interface BuildOptions {
  /** `false` disables the log. */
  logger?: boolean
  /** True if no other code runs in the server, so that async contexts of requests need not be separated. */
  sealed?: boolean
  /** Stores that outlive the server and are shared with the next one. Default: its own. */
  stores?: Stores
  /** The process, which has the listening servers. Default: the server listens itself. */
  host?: Host
  /** Log of the process. Default: the server's own. */
  log?: FastifyBaseLogger
  /** True if the gateway will not serve: for `check`, `routes` and `explain`. */
  dryRun?: boolean
  /** Clock of the edge's limits and of token expiry. Default: the system clock. */
  clock?: Clock
  /** Replacements for instances, connections and clock of the mesh. */
  meshDeps?: MeshDependencies
}

/** Creates a Fastify server with the gateway in it. It does not listen yet. */
export function build(
  config: Config,
  { logger, sealed, stores, host, log, dryRun, clock, meshDeps }: BuildOptions = {}
): FastifyInstance {
  assertLoaded('build', config)
  const server = Fastify({
    ...(host ? { ...gatewayOptions(config), serverFactory: host.edge.create } : optionsOf(config)),
    ...(log === undefined ? { logger: logger === false ? false : loggerOptions() } : { loggerInstance: log })
  } as FastifyServerOptions)
  if (sealed) server.decorate(SEALED, true)
  if (clock !== undefined) server.decorate(CLOCK, clock)
  if (meshDeps !== undefined) server.decorate('meshDeps', meshDeps)
  server.decorate('host', host ?? null)
  server.decorate('dryRun', dryRun ?? false)
  server.register(keepStores, { stores })
  countOwnRoutes(server)
  // Wrapped, since `fp` would mark `gateway` itself, which other servers may want to encapsulate.
  server.register(fp((fastify: FastifyInstance) => gateway(fastify, config)))
  return server
}

/** Starts the gateway: builds it, listens on its ports, and handles the signals of the process. */
export async function start(config: Config, command = 'node app.ts'): Promise<Runtime> {
  assertLoaded('start', config)
  const runtime = new Runtime(config, {
    log: createLog(),
    load: (file, warn) => (config.isSidecar ? loadSidecar : loadConfig)(file, process.env, warn),
    // Once it listens, Fastify accepts no hooks, so only plugins of the configuration can add any.
    build: (config, options) => build(config, { ...options, sealed: config.plugins.length === 0 }),
    serverOptions: socketOptions as RuntimeOptions['serverOptions'],
    protect
  })
  let stop: Stop | null = null
  const removeFaultHandlers = handleUncaught(runtime, () => stop)
  try {
    await runtime.start()
  } catch (error) {
    await runtime.close().catch((err: unknown) => logCloseFailure(runtime.log, err, config.hash))
    removeFaultHandlers()
    throw error
  }
  runtime.log.info(aboutProcess(config), 'jingwei is up')
  stop = createShutdown(runtime, () => runtime.config)
  const removeSignalHandlers = handleSignals(runtime, stop, () => void runtime.reload('SIGHUP'))
  void runtime.ended.then(removeFaultHandlers).then(removeSignalHandlers)
  const admin = runtime.admin === null ? null : urlOf('http', runtime.admin.address)
  const edges = runtime.listeners.map(({ name, address }, index) => {
    const { tls, connect, redirect } = config.listeners[index]!
    const url = urlOf(tls === undefined && connect === undefined ? 'http' : 'https', address)
    const isUrl = typeof address !== 'string' && redirect === undefined && connect === undefined
    const curl = tls !== undefined && isUrl ? curlByName(url, listenerTlsOf(name, tls).status()) : url
    return { name, url, curl, canBeTried: isUrl && curl !== null }
  })
  process.stderr.write(banner(config, edges, admin, command, edgeOf(config).concerns))
  return runtime
}

/** Time for which `explain` waits for the first response of a registry. */
const registryMs = 3000

/** Explains a request for the command line: looks up instances, but sends no request to them. */
async function explainOnce(config: Config, query: ExplainQuery): Promise<string> {
  const gateway = build(config, { logger: false, dryRun: true })
  try {
    await gateway.after()
    // A gateway that serves reads the list when it is ready.
    if (gateway.hasDecorator('consumers')) {
      const keys = gateway.edgeOrder.concerns.flatMap((concern) => concern.keys)
      await inSlices(gateway.consumers.replace(config.consumers.list, keys))
    }
    const probing = createProbe(config, gateway)
    gateway.addHook('onClose', () => probing.probe.close())
    // After that time, the explanation tells which services have no instances yet.
    await gateway.mesh
      .start({ attend: false })
      .ready({ timeout: registryMs })
      .catch(() => {})
    return explainText(await explain({ ...probing, gateway, config, targetPath, directlyFrom }, query))
  } finally {
    await gateway.close()
  }
}

/** Runs a command of the command line. The process ends with it, unless the command is `start` or `sidecar`. */
export async function main(argv: readonly string[]): Promise<void> {
  const gateways = {
    ...{ loadConfig, loadSidecar, schemaOf, build, start, explain: explainOnce },
    // A getter: the command `sidecar` does not load them.
    get commands() {
      return edgeHalf().commands
    }
  }
  const code = await run(argv, gateways)
  if (code !== null) await exit(code)
}

if (import.meta.main) {
  // Without a listener, Node opens its inspector on this signal.
  process.on('SIGUSR1', () => {})
  // Not awaited: a module with a top-level `await` cannot be loaded by `require`.
  void main(process.argv.slice(2))
}
