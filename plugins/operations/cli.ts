import { existsSync } from 'node:fs'
import { isIP } from 'node:net'
import { join, resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { maskCredentials } from '../../config/credentials.ts'
import { editorSchema } from '../../config/editor-schema.ts'
import type { Fault } from '../../config/faults.ts'
import { line } from '../../config/faults.ts'
import { ConfigError } from '../../config/load.ts'
import { conditionTexts } from '../../config/match-conditions.ts'
import { pathsOf } from '../../config/path-pattern.ts'
import { routeSettings, settingsText } from '../../config/route-config.ts'
import type { Config } from '../../config/schema.ts'
import { home } from '../home.ts'
import { METHODS } from '../node-http.ts'
import { version } from './about.ts'
import { count } from './banner.ts'
import type { TakesOptions } from './command-line.ts'
import { parseCommandLine, UsageError } from './command-line.ts'
import type { ExplainQuery } from './explain.ts'
import { importFrom } from './import.ts'
import { init } from './init.ts'
import { keepRequestsYoung } from './keep-requests-young.ts'
import { logFlushed } from './logging.ts'
import { hooksText } from './plugin-record.ts'
import { runReadyHooks } from './ready-hooks.ts'
import { targetText } from './route-target.ts'
import { table } from './table.ts'
import { helpText, startedAs } from './usage.ts'

export interface Gateways {
  /** Loads a file with the concerns of its plugins. */
  loadConfig: (file: string, env?: NodeJS.ProcessEnv, warn?: (warning: Fault) => void) => Promise<Config>
  /** The same for the process that runs the mesh half of the file's gateway. */
  loadSidecar: Gateways['loadConfig']
  /** Returns the schema of a file with the concerns of its plugins; for null, the schema without plugins. */
  schemaOf: (file: string | null) => Promise<object>
  start: (config: Config, command: string) => Promise<unknown>
  build: (config: Config, options: { logger: boolean; dryRun: boolean }) => FastifyInstance
  explain: (config: Config, asked: ExplainQuery) => Promise<string>
  /** Commands that concerns add. */
  commands: readonly Command[]
}

export interface Command extends TakesOptions {
  /** Lines for the help text. */
  readonly usage: string
  /** Returns the output. */
  run(
    load: () => Promise<Config>,
    argument: string | undefined,
    values: Readonly<Record<string, unknown>>
  ): Promise<string>
}

/** Runs a command; resolves to the exit code, or to null while a gateway is running. */
export async function run(argv: readonly string[], gateways: Gateways): Promise<number | null> {
  // Without a listener, an 'error' event would end the process: `| head -1` closes the pipe before all is written.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  keepRequestsYoung()
  try {
    return await command(argv, gateways)
  } catch (error) {
    const help = error instanceof UsageError && error.needsHelp ? `\n\n${helpText(gateways.commands)}` : ''
    const text = maskCredentials(describe(error as Error).trimEnd())
    await write(process.stderr, `${text}${help}\n`).catch(() => {})
    return 1
  }
}

async function command(argv: readonly string[], gateways: Gateways): Promise<number | null> {
  const { positionals, values } = parseCommandLine(argv, argv[0] === 'sidecar' ? [] : gateways.commands)
  const [name = 'start', argument, ...rest] = positionals
  if (values.help) return print(helpText(gateways.commands))
  if (values.version) return print(`${version}\n`)
  const named = (file: string | undefined) => (file === undefined ? usualFile(name === 'sidecar') : fileNamed(file))
  const file = argument ?? values.config
  switch (name) {
    case 'start':
      await gateways.start(await load(named(file), gateways), startedAs(file))
      return null
    case 'sidecar': {
      const config = await gateways.loadSidecar(named(file), process.env, warn)
      if (!config.isSidecar) {
        throw new Error(`${config.file}: has no "sidecar"; start a gateway by: ${startedAs(file ?? config.file)}`)
      }
      await gateways.start(config, startedAs(file))
      return null
    }
    case 'check': {
      const checked = await load(named(file), gateways)
      return print(`${checked.file}: ok, ${await buildOnce(checked, gateways)}\n`)
    }
    case 'init':
      if (argument === '') throw new Error('init: the name of the folder is empty')
      return print(await init(fileNamed(argument ?? '.'), join(home, 'config/starter'), version))
    case 'import':
      return print(await importFrom(argument, rest[0] && fileNamed(rest[0])))
    case 'schema':
      return print(
        `${JSON.stringify(editorSchema(await gateways.schemaOf(file === undefined ? null : named(file))), null, 2)}\n`
      )
    case 'routes':
      return print(await routeTable(await gateways.loadConfig(named(file)), gateways))
    case 'explain': {
      const request = explainQuery(rest, values)
      return print(maskCredentials(await gateways.explain(await gateways.loadConfig(named(argument)), request)))
    }
    default: {
      const concern = gateways.commands.find((command) => command.name === name)!
      const load = () => gateways.loadConfig(named(values.config))
      return print(`${await concern.run(load, argument, values)}\n`)
    }
  }
}

/**
 * Returns the absolute path of a file on the command line, so that messages show which file was read. npm runs scripts in
 * the folder of the package, but the path is relative to the folder in which npm was called.
 */
function fileNamed(file: string): string {
  const { npm_package_json: script, INIT_CWD: calledIn } = process.env
  const isByNpm = script === join(home, 'package.json') && process.cwd() === home
  return resolve(isByNpm && calledIn !== undefined ? calledIn : process.cwd(), file)
}

/**
 * Returns the path that JINGWEI_CONFIG names, else `gateway.yaml` in the current folder, else an example with services of its
 * own; for a sidecar, else `sidecar.yaml`.
 */
function usualFile(isSidecar: boolean): string {
  const { JINGWEI_CONFIG: named } = process.env
  if (named !== undefined) {
    const file = fileNamed(named)
    if (!existsSync(file)) throw new Error(`JINGWEI_CONFIG names a file that does not exist: ${file}`)
    return file
  }
  if (isSidecar) return fileNamed('sidecar.yaml')
  const own = fileNamed('gateway.yaml')
  return existsSync(own) ? own : join(home, 'config/gateway.yaml')
}

/** Loads a configuration. Warnings go to stderr, so that stdout has only the output of the command. */
function load(file: string, { loadConfig }: Gateways): Promise<Config> {
  return loadConfig(file, process.env, warn)
}

const warn = (warning: Fault): boolean => process.stderr.write(`warning: ${line(warning)}\n`)

/** Writes the output of a command. */
async function print(text: string): Promise<0> {
  await write(process.stdout, text).catch((error: Error) => {
    throw new Error(`cannot write to stdout: ${error.message}`, { cause: error })
  })
  return 0
}

/** Resolves when the text is written. EPIPE is ignored: a reader that closed its pipe needs no more. */
function write(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => {
      const { code } = (error ?? {}) as NodeJS.ErrnoException
      if (error && code !== 'EPIPE') reject(error)
      else resolve()
    })
  })
}

/** Ends the process after a command, even if plugins have left timers and sockets open. */
export async function exit(code: number, flushMs = 1000): Promise<never> {
  await logFlushed(flushMs)
  process.exit(code)
}

/** Builds a gateway without starting it: reads certificates, loads plugins and runs their `onReady` hooks. */
async function buildOnce(config: Config, { build }: Gateways): Promise<string> {
  const gateway = build(config, { logger: false, dryRun: true })
  let failure: unknown
  try {
    await gateway.after()
    for (const warning of await runReadyHooks(gateway, config.file)) warn(warning)
  } finally {
    // Not thrown here, where it would replace a fault of the configuration.
    await gateway.close().catch((error: unknown) => {
      failure = error
    })
    for (const warning of gateway.pluginRecord.warnings) warn(warning)
  }
  const sizes = sizesOf(config)
  if (failure === undefined) return sizes
  const { closeFaults } = gateway.pluginRecord
  if (closeFaults.length === 0) throw failure
  const summary = `${config.file}: the configuration itself is valid, ${sizes}; only closing failed`
  throw new ConfigError(config.file, closeFaults, { cause: (failure as Error).cause, summary })
}

/** A sidecar's routes, and the service of its inbound listener, are derived from its listeners. */
function sizesOf({ isSidecar, listeners, routes, services }: Config): string {
  if (isSidecar) return count(listeners.length, 'listener')
  return `${count(routes.length, 'route')}, ${count(Object.keys(services).length, 'service')}`
}

/** Returns the message of an error; at log level debug, also its stack. */
function describe(error: Error): string {
  const isFault = error instanceof ConfigError
  const text = isFault ? error.message : `jingwei: ${error.message}`
  if (process.env.JINGWEI_LOG_LEVEL !== 'debug') return text
  // The stack of a ConfigError says nothing; that of its cause, such as the error of a plugin, does.
  const thrown: unknown = isFault ? error.cause : error
  return thrown instanceof Error && thrown.stack !== undefined ? `${text}\n${thrown.stack}` : text
}

async function routeTable(config: Config, { build }: Gateways): Promise<string> {
  const gateway = build(config, { logger: false, dryRun: true })
  // Registers everything. Listening and discovery would begin with `ready`.
  await gateway.after()
  const hasPlugins = config.plugins.length > 0
  const hasSettings = config.routes.some((route) => route.config !== undefined)
  const rows = config.routes.map((route) => {
    const { path, methods, hosts } = route.match
    const match = [
      (route.isTransparent ? undefined : methods)?.join(',') ?? 'any',
      hosts?.join(',') ?? '',
      pathsOf(path)
        .map((each) => (typeof each === 'string' ? each : `=${each.exact}`))
        .join(','),
      ...conditionTexts(route.match),
      route.priority === 0 ? '' : `priority ${route.priority}`
    ]
    return [
      route.name,
      match.filter(Boolean).join(' '),
      gateway.edgeOrder.namesOn(route).join(' → ') || '–',
      targetText(route),
      route.targets[0]?.call === null ? gateway.mesh.describe(route.service, route.mesh, route.name).join(' → ') : '–',
      gateway.responsePath(route.name) ?? '–',
      ...(hasPlugins ? [hooksText(gateway.pluginRecord.hooksOf(route.name))] : []),
      ...(hasSettings ? [settingsText(routeSettings(route, config.plugins))] : [])
    ]
  })
  const own = gateway.pluginRecord
    .ownRoutes()
    .map(({ plugin, path, methods, edge, plugins }) => [
      '–',
      `${methods.join(',')} =${path}`,
      gateway.edgeOrder.namesOn({ edge }).join(' → '),
      `plugin ${plugin}`,
      '–',
      '–',
      hooksText(plugins),
      ...(hasSettings ? ['–'] : [])
    ])
  await gateway.close()
  const head = [
    'ROUTE',
    'MATCH',
    'EDGE',
    'SERVICE',
    'MESH',
    'RESPONSE',
    ...(hasPlugins ? ['PLUGINS'] : []),
    ...(hasSettings ? ['CONFIG'] : [])
  ]
  return table(head, [...rows, ...own])
}

function explainQuery(
  [method, path]: string[],
  { header, ip, consumer, claims, listener }: Record<string, unknown>
): ExplainQuery {
  const example = 'such as: explain config/gateway.yaml GET /api/orders/7'
  if (method === undefined || path === undefined)
    throw new Error(`explain takes a file, a method and a path, ${example}`)
  if (!METHODS.includes(method.toUpperCase())) throw new Error(`explain: "${method}" is not an HTTP method; ${example}`)
  if (!path.startsWith('/'))
    throw new Error(`explain: a path starts with "/", found "${path}"; name a host by -H 'host: NAME'`)
  if (typeof ip === 'string' && isIP(ip) === 0) throw new Error(`--ip ${ip}: expected an IP address`)
  const headers = (header as string[]).map((line) => {
    const colon = line.indexOf(':')
    if (colon < 1) throw new Error(`-H ${line}: expected NAME: VALUE`)
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]
  })
  return {
    method: method.toUpperCase(),
    path,
    headers: Object.fromEntries(headers) as Record<string, string>,
    ...(typeof ip === 'string' && { ip }),
    ...(typeof consumer === 'string' && { consumer }),
    ...(typeof claims === 'string' && { claims: parsedClaims(claims) }),
    ...(typeof listener === 'string' && { listener })
  }
}

function parsedClaims(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Error(`--claims ${text}: expected JSON, such as '{"scope":"orders:read"}'`, { cause })
  }
}
