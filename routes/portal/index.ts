/** Portals: one OpenAPI document, and a page, for the services behind the gateway's routes. */
import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { mountPoint } from '../../config/path-reading.ts'
import type { PortalConfig } from '../../config/schema/portal.ts'
import type { Config, RouteConfig } from '../../config/schema.ts'
import { matchesTag } from '../entity-tags.ts'
import { MethodNotAllowed, NotFound } from '../unrouted.ts'
import type { Outcome, Written } from './build.ts'
import { documentOf } from './fetch.ts'
import { pageStyle } from './page.ts'
import { buildInThread } from './thread.ts'

interface Built {
  readonly atMs: number
  readonly isWhole: boolean
  readonly bodies: Outcome['bodies']
}

/** Time after which documents are fetched again that were not available, and a portal is made again that could not be made. */
const retryMs = 5000

const styleHash = createHash('sha256').update(pageStyle).digest('base64')
const pagePolicy = `default-src 'none'; style-src 'sha256-${styleHash}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'`

/** Returns the handler of a portal. */
export function portalRoute(
  fastify: FastifyInstance,
  route: RouteConfig,
  config: Pick<Config, 'routes' | 'services'>
): RouteHandlerMethod {
  const portal = route.portal!
  const base = `${mountPoint(fastify)}${route.match.path === '/' ? '' : String(route.match.path)}`
  let built: Built | null = null
  let building: Promise<Built> | null = null
  let failure: { readonly atMs: number; readonly error: Error } | null = null
  /** Documents that services have had; used while a service has none. */
  const last = new Map<string, string>()

  const isOld = () => built !== null && Date.now() - built.atMs > (built.isWhole ? portal.refresh : retryMs)
  const recentFailure = () => (failure !== null && Date.now() - failure.atMs <= retryMs ? failure.error : null)

  const current = async (request: FastifyRequest): Promise<Built> => {
    // A client that leaves aborts its calls: those of the others then make their own.
    while (built === null || isOld()) {
      const error = recentFailure()
      if (error !== null) {
        if (built === null) throw error
        return built
      }
      const own = building === null
      building ??= build(fastify, portal, config, request, last, base).finally(() => {
        building = null
      })
      if (built !== null && !own) return built
      try {
        built = await building
        return built
      } catch (error) {
        if (!own) continue
        if (request.mesh.signal.aborted) throw error
        request.log.warn({ err: error as Error }, 'portal: the documents cannot be shown')
        failure = { atMs: Date.now(), error: error as Error }
      }
    }
    return built
  }

  return async (request, reply) => {
    request.isOwnResponse = true
    const path = request.raw.url!.split('?', 1)[0]!
    const rest = path.slice(base.length)
    const end = rest.endsWith('/') ? rest.slice(0, -1) : rest
    if (!ends.includes(end)) throw new NotFound()
    if (!['GET', 'HEAD'].includes(request.method)) {
      reply.header('allow', 'GET, HEAD')
      throw new MethodNotAllowed(request.method)
    }
    const { type, text, tag } = (await current(request)).bodies.get(end)!
    reply.header('etag', tag).header('cache-control', 'no-cache').header('x-content-type-options', 'nosniff')
    if (end === '') reply.header('content-security-policy', pagePolicy)
    if (matchesTag(request.headers['if-none-match'], tag)) return reply.code(304).send()
    return reply.type(type).send(text)
  }
}

const ends: readonly string[] = ['', '/openapi.json', '/openapi.yaml']

async function build(
  fastify: FastifyInstance,
  portal: PortalConfig,
  { routes, services }: Pick<Config, 'routes' | 'services'>,
  request: FastifyRequest,
  last: Map<string, string>,
  base: string
): Promise<Built> {
  const fetched = await Promise.all(
    Object.entries(portal.services).map(async ([service, source]) => {
      try {
        return { service, text: await documentOf(service, source, request, portal) }
      } catch (error) {
        tell(service, (error as Error).message)
        return { service, text: null }
      }
    })
  )
  // A client that has left says nothing about the services.
  if (request.mesh.signal.aborted) throw request.mesh.signal.reason
  const documents = fetched.map(({ service, text }): Written => {
    const leading = routes.filter(
      ({ services: all, isBridged, via }) => (isBridged || via !== undefined) && all.includes(service)
    )
    const described = leading.map((route) => {
      const {
        match: { path, methods },
        path: change
      } = route
      const rules = { match: { path, ...(methods && { methods }) }, ...(change && { path: change }) }
      return { route: rules, facts: fastify.edgeOrder.apiFacts(route) }
    })
    const texts = [text ?? [], last.get(service) ?? []].flat()
    // As JSON, because facts are those of plugins, too, and may have values that no thread can be given.
    const plain = JSON.parse(JSON.stringify(described)) as Written['routes']
    return { service, basePath: services[service]?.basePath ?? '', texts: [...new Set(texts)], routes: plain }
  })
  const { bodies, shown, problems } = await buildInThread({ portal, base, mount: mountPoint(fastify), documents })
  for (const { service, reason } of problems) tell(service, reason)
  for (const [service, text] of shown) last.set(service, text)
  const isWhole = fetched.every(({ service, text }) => text !== null && shown.get(service) === text)
  return { atMs: Date.now(), isWhole, bodies }

  function tell(service: string, reason: string): void {
    request.log.warn({ service, reason }, 'portal: the OpenAPI document of a service is not available')
  }
}
