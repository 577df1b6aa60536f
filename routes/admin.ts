import type { ValidateFunction } from 'ajv'
import { Ajv } from 'ajv'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import { directText } from '../config/direct-routes.ts'
import { directionsOf } from '../config/direction.ts'
import { routeSettings } from '../config/route-config.ts'
import type { Config, RouteMatch, SplitShare } from '../config/schema.ts'
import { callsOf } from '../config/targets.ts'

// Not by `import`, which loads Node's own undici as well.
const { METHODS } = process.getBuiltinModule('node:http')

/** Result of a reload. */
interface Outcome {
  readonly applied: boolean
  readonly faults: readonly { readonly message: string }[]
}

interface Options {
  gateway: FastifyInstance
  config: Config
  /** Returns the version of the program and its configuration file. */
  about: () => object
  /** Reads the configuration file again and applies it; null where the gateway is embedded in another server. */
  reload: ((cause: string) => Promise<Outcome>) | null
  /** Returns how the gateway would handle a request. */
  explain: (asked: {
    method: string
    path: string
    headers: Record<string, string>
    ip?: string
    consumer?: string
    claims?: unknown
    listener?: string
  }) => Promise<unknown>
}

const text = { type: 'string' } as const
const question = {
  type: 'object',
  properties: {
    method: { ...text, default: 'GET', enum: METHODS },
    path: { ...text, default: '/', pattern: '^/', maxLength: 65_536 },
    header: { type: 'array', items: { ...text, pattern: '^[^:]+:' }, maxItems: 100, default: [] },
    ip: text,
    consumer: text,
    claims: text,
    listener: text
  }
} as const

/** Masks the values of headers and cookies that a route or a split matches, since they may be shared secrets. */
const masked = (values: Readonly<Record<string, string | { present?: boolean; regex?: string }>>) =>
  Object.fromEntries(
    Object.entries(values).map(([name, wanted]) => {
      const isSecret = typeof wanted === 'string' || wanted.regex !== undefined
      return [name, isSecret ? '***' : wanted]
    })
  )

const maskedMatch = ({ headers, query, cookies, ...match }: RouteMatch) => ({
  ...match,
  ...(headers && { headers: masked(headers) }),
  ...(query && { query: masked(query) }),
  ...(cookies && { cookies: masked(cookies) })
})

const maskedShare = ({ match, ...share }: SplitShare) => {
  const { headers, cookies, consumers } = match ?? {}
  const shown = {
    ...(headers && { headers: masked(headers) }),
    ...(cookies && { cookies: masked(cookies) }),
    ...(consumers && { consumers })
  }
  return { ...share, ...(match && { match: shown }) }
}

/** The admin API: version, routes, services and certificates in use, reload and explain. It shows no options and no secrets. */
const admin: FastifyPluginAsync<Options> = async (server, { gateway, config, about, reload, explain }) => {
  server.get('/admin', async () => about())

  server.get('/admin/routes', async () => {
    const routes = config.routes.map((route) => {
      const { name, match, group, priority, service, via, mesh } = route
      const calls = callsOf(route)
      const direct = directText(route)
      return {
        name,
        match: maskedMatch(match),
        ...(group !== undefined && { group }),
        ...(priority !== 0 && { priority }),
        directions: directionsOf(config.listeners, match.listeners),
        ...(direct === null ? { service } : { direct }),
        ...(via && { via }),
        ...(calls && { calls }),
        ...(mesh.split && { split: mesh.split.map(maskedShare) }),
        edge: gateway.edgeOrder.namesOn(route),
        mesh: calls === null && direct === null ? gateway.mesh.describe(service, mesh, name) : [],
        responsePath: gateway.responsePath(name),
        plugins: gateway.pluginRecord.hooksOf(name),
        config: routeSettings(route, config.plugins)
      }
    })
    const own = gateway.pluginRecord.ownRoutes().map(({ plugin, path, methods, edge, plugins }) => ({
      name: null,
      plugin,
      match: { path, methods },
      edge: gateway.edgeOrder.namesOn({ edge }),
      plugins
    }))
    return [...routes, ...own]
  })
  server.get('/admin/consumers', async () => gateway.consumers.status())

  server.get('/admin/services', async () => gateway.mesh.status())

  server.get('/admin/listeners', async () => {
    const inbound = gateway.hasDecorator('inbound') ? gateway.inbound.status() : []
    const listeners = await gateway.listenerStatus()
    return listeners.map((listener) => {
      const accepts = inbound.find((each) => each.listener === listener.name)
      if (accepts === undefined) return listener
      const { listener: _name, expiresAt, validFrom: _from, ...connect } = accepts
      const certificateExpires = expiresAt === null ? null : new Date(expiresAt * 1000).toISOString()
      return { ...listener, connect: { ...connect, certificateExpires } }
    })
  })

  server.get('/admin/certificates', async () =>
    gateway.certificates().map(({ facts, ...certificate }) => {
      const time = (seconds: number) => new Date(seconds * 1000).toISOString()
      const { notBefore, notAfter, ...shown } = facts ?? {}
      return {
        ...certificate,
        ...shown,
        ...(notBefore !== undefined && { notBefore: time(notBefore) }),
        ...(notAfter !== undefined && { notAfter: time(notAfter) })
      }
    })
  )

  server.get<{ Params: { name: string } }>('/admin/services/:name', async ({ params }, reply) => {
    if (Object.hasOwn(config.services, params.name)) return gateway.mesh.service(params.name).status()
    return reply.code(404).send({ statusCode: 404, error: 'Not Found', message: 'no such service' })
  })

  server.post('/admin/reload', async (_request, reply) => {
    if (reload === null) {
      const message = 'the gateway is embedded in another server and cannot reload; restart that server'
      return reply.code(501).send({ statusCode: 501, error: 'Not Implemented', message })
    }
    const { applied, faults, ...outcome } = await reload('admin request')
    if (applied) return outcome
    const message = 'the configuration was not applied; the previous one stays in use'
    return reply.code(422).send({ statusCode: 422, error: 'Unprocessable Content', message, faults, ...outcome })
  })

  /** Query: `?path=/api/orders/7&method=GET&header=x-beta:1&ip=10.0.0.7&consumer=alice`; `header` may be repeated, `claims` is JSON. */
  server.get<{
    Querystring: {
      method: string
      path: string
      header: string[]
      ip?: string
      consumer?: string
      claims?: string
      listener?: string
    }
  }>(
    '/admin/explain',
    { schema: { querystring: question }, validatorCompiler: compiledLater },
    async ({ query: { header, claims, ...asked } }) =>
      explain({ ...asked, ...(claims !== undefined && { claims: claimsOf(claims) }), headers: headersOf(header) })
  )
}

/**
 * Compiles the schema of a route on its first request, with the options of Fastify's own compiler. Most gateways start
 * many times and never get one.
 */
function compiledLater({ schema }: { schema: object }): ValidateFunction {
  let compiled: ValidateFunction | undefined
  const validate = (data: unknown) => {
    compiled ??= new Ajv({ coerceTypes: 'array', useDefaults: true, removeAdditional: true }).compile(schema)
    const isValid = compiled(data)
    Object.assign(validate, { errors: compiled.errors })
    return isValid
  }
  return validate as ValidateFunction
}

function claimsOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw Object.assign(new Error('claims: expected JSON', { cause }), { statusCode: 400 })
  }
}

/** Parses lines of the form `name: value`. */
function headersOf(lines: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]
    })
  )
}

export default admin
