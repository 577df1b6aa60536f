/** Configured routes that are served by @fastify/http-proxy with its own options. Its calls go through the mesh. */
import { pathToFileURL } from 'node:url'
import createError from '@fastify/error'
import type { FastifyHttpProxyOptions } from '@fastify/http-proxy'
import type { FastifyInstance, FastifyRequest, RouteHandlerMethod, RouteOptions } from 'fastify'
import { ConfigError } from '../config/faults.ts'
import { inTime } from '../config/in-time.ts'
import type { PathPattern } from '../config/path-pattern.ts'
import type { RouteConfig } from '../config/schema.ts'

type ModuleOptions = Partial<FastifyHttpProxyOptions>
type Params = Record<string, string>

const Undecodable = createError('JW_BAD_TARGET', 'The path is not valid UTF-8', 400)

/** Options that the configuration sets, and the reason why a module must not. */
const reserved: Readonly<Record<string, string>> = {
  ...Object.fromEntries(['prefix', 'routes', 'httpMethods', 'constraints'].map((key) => [key, 'match sets it'])),
  ...Object.fromEntries(['upstream', 'base'].map((key) => [key, 'service or split sets it'])),
  ...Object.fromEntries(['undici', 'http', 'http2'].map((key) => [key, 'calls go over the mesh'])),
  ...Object.fromEntries(['websocket', 'wsUpstream'].map((key) => [key, 'WebSockets would bypass the mesh'])),
  config: 'routes[].config sets it'
}

/** Returns a function that creates the error which stops the start, with the position of `httpProxy` in the file. */
export function startFault(file: string, index: number, { httpProxy }: RouteConfig) {
  const { line, column } = httpProxy?.position ?? { line: 1, column: 1 }
  return (message: string, cause?: unknown) =>
    new ConfigError(file, [{ file, line, column, path: `routes[${index}].httpProxy`, message }], { cause })
}

/** Loads `httpProxy.module` of a route. */
export async function moduleOptions(
  { httpProxy }: RouteConfig,
  fault: ReturnType<typeof startFault>
): Promise<ModuleOptions> {
  const path = httpProxy?.module
  if (path === undefined) return {}
  const because = (why: string, cause?: unknown) => fault(`module ${path}: ${why}`, cause)
  const module = await inTime(import(pathToFileURL(path).href)).catch((error: unknown) => {
    throw because(error instanceof Error ? error.message : String(error), error)
  })
  const options: unknown = (module as { default?: unknown }).default
  if (typeof options !== 'object' || options === null) {
    throw because('it has no default export with options of @fastify/http-proxy')
  }
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(reserved, key)) throw because(`it must not set ${key}: ${reserved[key]}`)
  }
  for (const key of ['handler', 'preRewrite']) {
    const value: unknown = Reflect.get(options, key)
    if (value !== undefined && typeof value !== 'function') throw because(`${key} must be a function`)
  }
  // A call to another service could carry a client's copies of headers that this service trusts.
  if ((options as ModuleOptions).replyOptions?.getUpstream !== undefined) {
    throw because('it must not set replyOptions.getUpstream: service or split sets it')
  }
  return options
}

interface Registration {
  readonly route: RouteConfig
  readonly pattern: PathPattern
  /** Path as plugins see it in `routeOptions.url`. */
  readonly url: string
  readonly methods: string[]
  readonly config: NonNullable<RouteOptions['config']>
  readonly constraints: Record<string, string>
  readonly module: ModuleOptions
  /** Forwards WebSockets, which http-proxy would connect by another client; null if they are refused. */
  readonly upgrade: RouteHandlerMethod | null
}

/** Registers one Fastify route of a configured route through http-proxy. */
export async function registerHttpProxy(fastify: FastifyInstance, registration: Registration): Promise<void> {
  const { route, pattern, url, methods, config, constraints, module, upgrade } = registration
  const { rewritePrefix, internalRewriteLocationHeader } = route.httpProxy ?? {}
  const prefix = rewritePrefix === undefined ? '' : prefixOf(pattern)
  const options: FastifyHttpProxyOptions = {
    ...(internalRewriteLocationHeader !== undefined && { internalRewriteLocationHeader }),
    // http-proxy would write the names of the parameters, not their values, into the header.
    ...(prefix.includes(':') && { internalRewriteLocationHeader: false }),
    ...module,
    upstream: `http://${route.service}.mesh`,
    prefix,
    // Without a prefix the path is forwarded unchanged.
    rewritePrefix: rewritePrefix ?? (fastify.prefix || '/'),
    routes: [prefix === '' ? url : ''],
    httpMethods: methods,
    constraints,
    config,
    preRewrite(given, params, at) {
      const rewritten = module.preRewrite?.(given, params, at) ?? given
      encodeParams(rewritten, params as Params)
      return rewritten
    },
    handler(request, reply, dest, replyOptions) {
      if (request.upgrade !== null && upgrade !== null) return upgrade.call(fastify, request, reply)
      decodeParams(request)
      if (module.handler !== undefined) return module.handler(request, reply, dest, replyOptions)
      return reply.from(dest, replyOptions)
    }
  }
  await fastify.register(async (child) => {
    // http-proxy adds its own parser for all content types.
    if (child.hasContentTypeParser('*')) child.removeContentTypeParser('*')
    if (module.proxyPayloads === false || module.preValidation !== undefined) {
      // In this case http-proxy adds no parsers, and proxied routes have none of Fastify's.
      const parse = child.getDefaultJsonParser('error', 'error')
      // The body limit of the route, if any, takes precedence.
      child.addContentTypeParser('application/json', { parseAs: 'string', bodyLimit: Number.MAX_SAFE_INTEGER }, parse)
    }
    const { default: httpProxy } = await import('@fastify/http-proxy')
    await child.register(httpProxy, options)
  })
}

/** Returns the part of a pattern that `rewritePrefix` replaces. If it has parameters, http-proxy replaces by counting segments. */
function prefixOf({ parts }: PathPattern): string {
  const segments = parts.map((part) => {
    if (part.kind === 'text') return part.text
    return `:${part.kind === 'any' ? part.name : part.names[0]}`
  })
  return segments.map((segment) => `/${segment}`).join('')
}

/**
 * Encodes the values of parameters, which http-proxy inserts into the path unchanged: a decoded `?` or `#` would end the path
 * there and let the client reach another resource, and `$&` is a replacement pattern of `replace()`.
 */
function encodeParams(url: string, params: Params): void {
  try {
    // http-proxy decodes the path, but not the query.
    const query = url.indexOf('?')
    decodeURI(query === -1 ? url : url.slice(0, query))
  } catch {
    // http-proxy would throw an error that becomes a 500.
    throw new Undecodable()
  }
  for (const name in params) params[name] = encodeURIComponent(params[name]!)
}

function decodeParams({ params }: FastifyRequest): void {
  const encoded = params as Params
  for (const name in encoded) encoded[name] = decodeURIComponent(encoded[name]!)
}
