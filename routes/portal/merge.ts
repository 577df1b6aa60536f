/** Merges the OpenAPI documents of services into one, for the routes by which clients reach them. */
import type { FastifyInstance } from 'fastify'
import type { RouteConfig } from '../../config/schema.ts'
import { TimeSlice } from '../../plugins/time-slices.ts'
import type { Part } from './copy.ts'
import { Copier, isPart } from './copy.ts'
import { gatewayPath } from './gateway-path.ts'

/** Facts about a concern of a route. */
type ApiFacts = ReturnType<FastifyInstance['edgeOrder']['apiFacts']>[number]

/** A route with the facts about its concerns. */
export interface Described {
  readonly route: RouteConfig
  readonly facts: readonly ApiFacts[]
}

export interface Document {
  readonly openapi: string
  readonly info: object
  readonly paths: Readonly<Record<string, Record<string, Part>>>
  readonly components: Readonly<Record<string, Record<string, unknown>>>
  readonly [extension: `x-${string}`]: unknown
}

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']
/** Failures of every call to a service. */
const ofServices: Readonly<Record<number, string>> = {
  502: 'The service responded with an error of the protocol, or could not be reached.',
  503: 'No instance of the service is available, or the gateway is overloaded.',
  504: 'The service did not respond in time.'
}

/** Schema of the gateway's errors. */
const errorSchema = {
  type: 'object',
  required: ['statusCode', 'error', 'message'],
  properties: {
    statusCode: { type: 'integer' },
    code: { type: 'string' },
    error: { type: 'string' },
    message: { type: 'string' },
    requestId: { type: 'string' }
  }
}

/** The merged document, while it is made. */
export class Merged {
  readonly #paths: Record<string, Record<string, Part>> = Object.create(null)
  readonly #components: Record<string, Record<string, unknown>> = {}
  readonly #missing: string[] = []

  /** Notes that the document of a service is not available. */
  lacks(service: string): void {
    this.#missing.push(service)
  }

  /** Adds the operations of a service. Throws if its document is not one of OpenAPI 3. */
  async add(service: string, document: unknown, basePath: string, routes: readonly Described[]): Promise<void> {
    const { openapi, paths } = isPart(document) ? document : {}
    if (typeof openapi !== 'string' || !/^3\.[01]\./.test(openapi) || !isPart(paths))
      throw new Error('not a document of OpenAPI 3.0 or 3.1')
    const copier = new Copier(service, openapi.startsWith('3.0'))
    const own = document as Part
    const found: Found[] = []
    const slice = new TimeSlice()
    for (const [path, item] of Object.entries(paths)) {
      if (slice.isOver) await slice.next()
      if (!isPart(item) || !path.startsWith('/')) continue
      const called = calledPath(own, path, basePath)
      for (const described of routes) {
        const client = gatewayPath(described.route, called)
        if (client === null) continue
        for (const each of operationsOf(item, described, copier, own, service)) found.push({ ...each, path: client })
      }
    }
    for (const { path, method, operation, facts } of found) {
      this.#paths[path] ??= {}
      this.#paths[path][method] ??= this.#completed(operation, facts, own, copier)
    }
    this.#addComponents(own, copier)
  }

  /** Adds the components to which an operation refers, and those to which they refer. */
  #addComponents(document: Part, copier: Copier): void {
    const all = isPart(document.components) ? document.components : {}
    const given = new Map<string, [kind: string, value: unknown]>()
    for (const [kind, each] of Object.entries(all)) {
      if (!isPart(each)) continue
      for (const [name, value] of Object.entries(each)) given.set(`${kind}/${copier.name(name)}`, [kind, value])
    }
    const wanted = new Set<string>()
    referencesIn(this.#paths, wanted)
    for (const reference of wanted) {
      const [kind, value] = given.get(reference) ?? []
      if (kind === undefined) continue
      const name = reference.slice(kind.length + 1)
      this.#components[kind] ??= {}
      if (Object.hasOwn(this.#components[kind], name)) continue
      const copied = copier.copy(value)
      this.#components[kind][name] = copied
      // The set grows while it is read.
      referencesIn(copied, wanted)
    }
  }

  #completed(given: Part, all: readonly ApiFacts[], document: Part, copier: Copier): Part {
    const hasBody = given.requestBody !== undefined
    const statuses = new Map<number, string>(Object.entries(ofServices).map(([status, text]) => [Number(status), text]))
    for (const { responses = {}, ofBodies } of all) {
      if (ofBodies && !hasBody) continue
      for (const [status, text] of Object.entries(responses)) {
        const before = statuses.get(Number(status))
        statuses.set(Number(status), before === undefined || before === text ? text : `${before} ${text}`)
      }
    }
    const responses = isPart(given.responses) ? given.responses : {}
    const added = [...statuses].filter(([status]) => !Object.hasOwn(responses, String(status)))
    return {
      ...given,
      responses: {
        ...responses,
        ...Object.fromEntries(added.map(([status, text]) => [status, this.#error(status, text)]))
      },
      ...this.#security(given, all, document, copier),
      ...Object.assign({}, ...all.map(({ extensions }) => extensions ?? {}))
    }
  }

  #error(status: number, description: string): object {
    this.#components.schemas ??= {}
    this.#components.schemas['gateway.Error'] ??= errorSchema
    const content = { 'application/json': { schema: { $ref: '#/components/schemas/gateway.Error' } } }
    return { $ref: this.#shared('responses', `gateway.${status}`, { description, content }) }
  }

  /** Returns the security of the gateway; without one, that of the service. */
  #security(operation: Part, facts: readonly ApiFacts[], document: Part, copier: Copier): object {
    const schemes = facts.flatMap(({ security = {} }) => Object.entries(security))
    if (schemes.length === 0) {
      const own = operation.security ?? document.security
      if (!Array.isArray(own)) return {}
      const all =
        isPart(document.components) && isPart(document.components.securitySchemes)
          ? document.components.securitySchemes
          : {}
      const used = (own as unknown[]).filter(isPart)
      for (const name of used.flatMap((each) => Object.keys(each))) {
        if (all[name] === undefined) continue
        this.#components.securitySchemes ??= {}
        this.#components.securitySchemes[copier.name(name)] = copier.copy(all[name])
      }
      return {
        security: used.map((each) =>
          Object.fromEntries(Object.entries(each).map(([name, scopes]) => [copier.name(name), scopes]))
        )
      }
    }
    const names = schemes.map(([name, scheme]) => this.#shared('securitySchemes', name, scheme).split('/').at(-1)!)
    const isAll = facts.some(({ combine }) => combine?.isAll === true)
    const isOptional = facts.some(({ combine }) => combine?.isOptional === true)
    const security: object[] = isAll
      ? [Object.fromEntries(names.map((name) => [name, []]))]
      : names.map((name) => ({ [name]: [] }))
    if (isOptional) security.push({})
    return { security }
  }

  /** Returns the reference of a component that routes share; others with the same name get a number. */
  #shared(kind: string, name: string, value: object): string {
    this.#components[kind] ??= {}
    const all = this.#components[kind]
    const text = JSON.stringify(value)
    let free = name
    for (let i = 2; all[free] !== undefined && JSON.stringify(all[free]) !== text; i++) free = `${name}-${i}`
    all[free] = value
    return `#/components/${kind}/${free}`
  }

  finish(info: object): Document {
    const sorted = Object.entries(this.#paths).sort(([a], [b]) => (a < b ? -1 : 1))
    return {
      openapi: '3.1.0',
      info,
      paths: Object.fromEntries(sorted),
      components: this.#components,
      ...(this.#missing.length > 0 && { 'x-unavailable': this.#missing.sort() })
    }
  }
}

/** An operation of a service, with the facts about the route by which clients reach it. */
interface Found {
  readonly path: string
  readonly method: string
  readonly operation: Part
  readonly facts: readonly ApiFacts[]
}

function operationsOf(
  item: Part,
  { route, facts }: Described,
  copier: Copier,
  document: Part,
  service: string
): Omit<Found, 'path'>[] {
  const allowed = route.match.methods?.map((method) => method.toLowerCase())
  const shared = Array.isArray(item.parameters) ? (item.parameters as unknown[]) : []
  const tagged = Array.isArray(document.tags) && document.tags.length > 0
  return methods.flatMap((method) => {
    const operation = item[method]
    const isAllowed =
      allowed === undefined || allowed.includes(method) || (method === 'head' && allowed.includes('get'))
    if (!isPart(operation) || !isAllowed) return []
    const { servers: _servers, ...rest } = operation
    const own = Array.isArray(rest.parameters) ? (rest.parameters as unknown[]) : []
    const parameters = [...shared, ...own]
    const copied = copier.copy({
      ...rest,
      ...(parameters.length > 0 && { parameters }),
      ...(rest.tags === undefined && !tagged && { tags: [service] })
    }) as Part
    return [{ method, operation: copied, facts }]
  })
}

/** Longest URL of a server that is read, in characters. */
const longestUrl = 2000

/** Returns the path of a call for a path of a document: below that of its first server, without the service's base path. */
function calledPath(document: Part, path: string, basePath: string): string {
  const [server] = Array.isArray(document.servers) ? (document.servers as unknown[]) : []
  const { url, variables } = isPart(server) ? server : {}
  const text = String(url ?? '').replace(/\{([^{}]*)\}/g, (_, name: string) => {
    const variable = isPart(variables) ? variables[name] : undefined
    return isPart(variable) ? String(variable.default ?? '') : ''
  })
  const { pathname = '' } = (text.length <= longestUrl && URL.parse(text, 'http://service')) || {}
  const prefix = pathname.endsWith('/') ? pathname.slice(0, -1) : pathname
  const full = `${prefix}${path}`
  return basePath !== '' && full.startsWith(`${basePath}/`) ? full.slice(basePath.length) : full
}

/** Adds `KIND/NAME` of each component to which a value refers. */
function referencesIn(value: unknown, to: Set<string>): void {
  const left: unknown[] = [value]
  while (left.length > 0) {
    const each = left.pop()
    if (Array.isArray(each)) for (const inner of each as unknown[]) left.push(inner)
    else if (isPart(each)) {
      for (const [key, inner] of Object.entries(each)) {
        if (typeof inner !== 'string') left.push(inner)
        else if (inner.startsWith('#/components/') && (key === '$ref' || key !== 'description'))
          to.add(inner.slice('#/components/'.length))
      }
    }
  }
}
