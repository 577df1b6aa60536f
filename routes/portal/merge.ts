/** Merges the OpenAPI documents of services into one, for the routes by which clients reach them. */
import type { FastifyInstance } from 'fastify'
import type { RouteConfig } from '../../config/schema.ts'
import type { Part } from './copy.ts'
import { Copier, isKind, isPart } from './copy.ts'
import type { Format, GatewayError } from './gateway-errors.ts'
import { errorFormats, hasRetryAfter, ofServices } from './gateway-errors.ts'
import { gatewayPath } from './gateway-path.ts'

/** Facts about a concern of a route. */
type ApiFacts = ReturnType<FastifyInstance['edgeOrder']['apiFacts']>[number]

/** The place of a document behind the gateway. */
export interface Place {
  /** Base path of the service. */
  readonly basePath: string
  /** The routes to the service. */
  readonly routes: readonly Described[]
  /** Most characters of its texts. */
  readonly mostCharacters: number
}

/** A route with the facts about its concerns. */
export interface Described {
  readonly route: Pick<RouteConfig, 'match' | 'path'>
  readonly facts: readonly ApiFacts[]
}

export interface Document {
  readonly openapi: string
  readonly info: object
  readonly servers?: readonly { readonly url: string }[]
  readonly paths: Readonly<Record<string, Record<string, Part>>>
  readonly components: Readonly<Record<string, Record<string, unknown>>>
  readonly [extension: `x-${string}`]: unknown
}

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']

/** Returns whether facts are about a method. */
const concerns = (methods: ApiFacts['methods'], method: string): boolean =>
  methods === undefined || methods.some((each) => each.toLowerCase() === method)

/** The merged document, while it is made. */
export class Merged {
  readonly #paths: Record<string, Record<string, Part>> = Object.create(null)
  readonly #components: Record<string, Record<string, unknown>> = Object.create(null)
  readonly #missing: string[] = []

  /** Notes that the document of a service is not available. */
  lacks(service: string): void {
    this.#missing.push(service)
  }

  /** Adds the operations of a service. Throws if its document is not one of OpenAPI 3. */
  add(service: string, document: unknown, { basePath, routes, mostCharacters }: Place): void {
    const { openapi, paths } = isPart(document) ? document : {}
    if (typeof openapi !== 'string' || !/^3\.[01]\./.test(openapi) || !isPart(paths))
      throw new Error('not a document of OpenAPI 3.0 or 3.1')
    const copier = new Copier(service, openapi.startsWith('3.0'), mostCharacters)
    const own = document as Part
    const found = new Map<string, Map<string, Part>>()
    for (const [path, item] of Object.entries(paths)) {
      if (!isPart(item) || !path.startsWith('/')) continue
      const called = calledPath(own, path, basePath)
      for (const described of routes) {
        const client = gatewayPath(described.route, called)
        if (client === null) continue
        const taken = found.get(client) ?? new Map<string, Part>()
        found.set(client, taken)
        const isTaken = (method: string) => taken.has(method) || this.#paths[client]?.[method] !== undefined
        for (const method of methodsOf(item, described.route).filter((each) => !isTaken(each))) {
          const operation = operationOf(item, method, copier, own, service)
          const facts = described.facts.filter(({ methods }) => concerns(methods, method))
          taken.set(method, this.#completed(operation, facts, own, copier))
        }
      }
    }
    // Nothing of a document is shown before all of it is known to be sound.
    this.#addComponents(own, copier, found)
    for (const [path, operations] of found) {
      this.#paths[path] = Object.assign(this.#paths[path] ?? {}, Object.fromEntries(operations))
    }
  }

  /** Adds the components to which operations refer, and those to which they refer. */
  #addComponents(document: Part, copier: Copier, operations: ReadonlyMap<string, ReadonlyMap<string, Part>>): void {
    const all = isPart(document.components) ? document.components : {}
    const given = new Map<string, readonly [kind: string, name: string, value: unknown]>()
    for (const [kind, each] of Object.entries(all)) {
      if (!isKind(kind) || !isPart(each)) continue
      for (const [own, value] of Object.entries(each)) {
        const name = copier.name(own)
        given.set(`${kind}/${name}`, [kind, name, value])
      }
    }
    const wanted = new Set<string>()
    for (const each of operations.values()) referencesIn([...each.values()], wanted)
    const copies: (readonly [kind: string, name: string, value: unknown])[] = []
    for (const reference of wanted) {
      const component = given.get(reference)
      if (component === undefined) continue
      const [kind, name, value] = component
      const copied = copier.copy(value)
      copies.push([kind, name, copied])
      // The set grows while it is read.
      referencesIn(copied, wanted)
    }
    for (const [kind, name, copied] of copies) this.#kind(kind)[name] = copied
  }

  /** Returns the components of a kind. */
  #kind(kind: string): Record<string, unknown> {
    this.#components[kind] ??= Object.create(null) as Record<string, unknown>
    return this.#components[kind]
  }

  #completed(given: Part, all: readonly ApiFacts[], document: Part, copier: Copier): Part {
    const hasBody = given.requestBody !== undefined
    const format = all.some(({ errors }) => errors === 'problem') ? 'problem' : 'json'
    const errors = new Map<string, GatewayError>()
    const add = (responses: Readonly<Record<string, string | undefined>>, format: Format) => {
      for (const [status, text] of Object.entries(responses)) {
        if (text === undefined) continue
        const { texts, formats } = errors.get(status) ?? { texts: new Set(), formats: new Set() }
        errors.set(status, { texts: texts.add(text), formats: formats.add(format) })
      }
    }
    add(ofServices, format)
    for (const { responses = {}, ofBodies, format: own } of all) if (!ofBodies || hasBody) add(responses, own ?? format)
    const responses = isPart(given.responses) ? given.responses : {}
    const added = [...errors].filter(([status]) => !Object.hasOwn(responses, status))
    const headers = Object.assign({}, ...all.map(({ headers }) => headers)) as Readonly<Record<string, string>>
    return {
      ...given,
      ...(all.some(({ isDeprecated }) => isDeprecated) && { deprecated: true }),
      responses: {
        ...Object.fromEntries(Object.entries(responses).map(([status, each]) => [status, this.#with(headers, each)])),
        ...Object.fromEntries(added.map(([status, error]) => [status, this.#error(status, error, headers)]))
      },
      ...this.#security(given, all, document, copier),
      ...Object.assign({}, ...all.map(({ extensions }) => extensions ?? {}))
    }
  }

  #error(status: string, { texts, formats }: GatewayError, headers: Readonly<Record<string, string>>): object {
    const content = Object.fromEntries(
      [...formats].map((format) => {
        const { type, name, schema } = errorFormats[format]
        this.#kind('schemas')[name] ??= schema
        return [type, { schema: { $ref: `#/components/schemas/${name}` } }]
      })
    )
    const response = { description: [...texts].join(' '), content }
    const all = { ...headers, ...(hasRetryAfter.has(status) && { 'Retry-After': 'Seconds after which to try again.' }) }
    return { $ref: this.#shared('responses', `gateway.${status}`, this.#with(all, response) as object) }
  }

  /** Returns a response with header fields of the gateway. One that is a reference stays as it is. */
  #with(headers: Readonly<Record<string, string>>, response: unknown): unknown {
    const added = Object.entries(headers)
    if (added.length === 0 || !isPart(response) || response.$ref !== undefined) return response
    const own = isPart(response.headers) ? response.headers : {}
    const known = new Set(Object.keys(own).map((name) => name.toLowerCase()))
    const more = added
      .filter(([name]) => !known.has(name.toLowerCase()))
      .map(([name, description]) => {
        const header = { description, schema: { type: 'string' } }
        return [name, { $ref: this.#shared('headers', `gateway.${name}`, header) }]
      })
    return { ...response, headers: { ...own, ...Object.fromEntries(more) } }
  }

  /** Returns the security of the gateway; without one, that of the service. */
  #security(operation: Part, facts: readonly ApiFacts[], document: Part, copier: Copier): object {
    const schemes = facts.flatMap(({ security = {} }) => Object.entries(security))
    if (schemes.length === 0) {
      const own = operation.security ?? copier.copy(document.security)
      if (!Array.isArray(own)) return {}
      const all =
        isPart(document.components) && isPart(document.components.securitySchemes)
          ? document.components.securitySchemes
          : {}
      const used = (own as unknown[]).filter(isPart)
      for (const name of used.flatMap((each) => Object.keys(each))) {
        if (Object.hasOwn(all, name)) this.#kind('securitySchemes')[copier.name(name)] = copier.copy(all[name])
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
    const all = this.#kind(kind)
    const text = JSON.stringify(value)
    let free = name
    for (let i = 2; all[free] !== undefined && JSON.stringify(all[free]) !== text; i++) free = `${name}-${i}`
    all[free] = value
    return `#/components/${kind}/${free}`
  }

  /** `mount` is the path below which clients reach all paths; empty without one. */
  finish(info: object, mount: string): Document {
    const sorted = Object.entries(this.#paths).sort(([a], [b]) => (a < b ? -1 : 1))
    return {
      openapi: '3.1.0',
      info,
      ...(mount !== '' && { servers: [{ url: mount }] }),
      paths: Object.fromEntries(sorted),
      components: this.#components,
      ...(this.#missing.length > 0 && { 'x-unavailable': this.#missing.sort() })
    }
  }
}

/** Returns the methods of a path that a route lets pass. */
function methodsOf(item: Part, { match }: Described['route']): string[] {
  const allowed = match.methods?.map((method) => method.toLowerCase())
  return methods.filter(
    (method) =>
      isPart(item[method]) &&
      (allowed === undefined || allowed.includes(method) || (method === 'head' && allowed.includes('get')))
  )
}

function operationOf(item: Part, method: string, copier: Copier, document: Part, service: string): Part {
  const { servers: _servers, ...rest } = item[method] as Part
  const listed = (value: unknown) => (Array.isArray(value) ? (value as unknown[]) : [])
  const parameters = [...listed(item.parameters), ...listed(rest.parameters)]
  const isTagged = Array.isArray(document.tags) && document.tags.length > 0
  return copier.copy({
    ...rest,
    ...(parameters.length > 0 && { parameters }),
    ...(rest.tags === undefined && !isTagged && { tags: [service] })
  }) as Part
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
