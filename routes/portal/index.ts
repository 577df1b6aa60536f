/** Portals: one OpenAPI document, and a page, for the services behind the gateway's routes. */
import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { dump } from 'js-yaml'
import type { PortalConfig } from '../../config/schema/portal.ts'
import type { Config, RouteConfig } from '../../config/schema.ts'
import { matchesTag } from '../entity-tags.ts'
import { MethodNotAllowed, NotFound } from '../unrouted.ts'
import { documentOf } from './fetch.ts'
import type { Document } from './merge.ts'
import { Merged } from './merge.ts'
import { pageOf, pageStyle } from './page.ts'

interface Built {
  readonly atMs: number
  readonly isWhole: boolean
  /** Bodies by the end of the path. */
  readonly bodies: ReadonlyMap<string, { readonly type: string; readonly text: string; readonly tag: string }>
}

/** Time after which documents are fetched again that were not available. */
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
  const base = route.match.path === '/' ? '' : String(route.match.path)
  let built: Built | null = null
  let building: Promise<Built> | null = null
  /** Documents that services have had; used while a service has none. */
  const last = new Map<string, unknown>()

  const isOld = () => built !== null && Date.now() - built.atMs > (built.isWhole ? portal.refresh : retryMs)

  const current = async (request: FastifyRequest): Promise<Built> => {
    // A client that leaves aborts its calls: those of the others then make their own.
    while (built === null || isOld()) {
      const own = building === null
      building ??= build(fastify, portal, config, request, last, base).finally(() => {
        building = null
      })
      if (built !== null && !own) return built
      try {
        built = await building
        return built
      } catch (error) {
        if (own) throw error
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
    reply.header('etag', tag).header('cache-control', 'no-cache')
    if (end === '') reply.header('content-security-policy', pagePolicy).header('x-content-type-options', 'nosniff')
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
  last: Map<string, unknown>,
  base: string
): Promise<Built> {
  const { title, version, description } = portal
  const merged = new Merged()
  const fetched = await Promise.all(
    Object.entries(portal.services).map(async ([name, source]) => {
      try {
        last.set(name, await documentOf(name, source, request, portal))
        return { name, isFresh: true }
      } catch (error) {
        request.log.warn(
          { err: error as Error, service: name },
          'portal: the OpenAPI document of a service is not available'
        )
        return { name, isFresh: false }
      }
    })
  )
  // A client that has left says nothing about the services.
  if (request.mesh.signal.aborted) throw request.mesh.signal.reason
  for (const { name } of fetched) {
    const document = last.get(name)
    if (document === undefined) {
      merged.lacks(name)
      continue
    }
    const leading = routes.filter(
      ({ services: all, isBridged, via }) => (isBridged || via !== undefined) && all.includes(name)
    )
    const described = leading.map((route) => ({ route, facts: fastify.edgeOrder.apiFacts(route) }))
    try {
      await merged.add(name, document, services[name]?.basePath ?? '', described)
    } catch (error) {
      request.log.warn(
        { err: error as Error, service: name },
        'portal: the OpenAPI document of a service cannot be used'
      )
      merged.lacks(name)
    }
  }
  const document = merged.finish({ title, version, ...(description !== undefined && { description }) })
  return { atMs: Date.now(), isWhole: fetched.every(({ isFresh }) => isFresh), bodies: bodiesOf(document, base) }
}

function bodiesOf(document: Document, base: string): Built['bodies'] {
  const body = (type: string, text: string) => ({
    type,
    text,
    tag: `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`
  })
  return new Map([
    ['', body('text/html; charset=utf-8', pageOf(document, base))],
    ['/openapi.json', body('application/json; charset=utf-8', JSON.stringify(document))],
    ['/openapi.yaml', body('application/yaml; charset=utf-8', dump(document, { noRefs: true }))]
  ])
}
