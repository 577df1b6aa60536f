/**
 * Concerns on the routes that plugins add. Access log and metrics always apply. Other concerns apply if the route's
 * `config.edge` asks for them; all concerns of the top-level `edge` apply if the plugin is `guarded`. The hooks of concerns
 * run before the route's own hooks.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { missingFacts } from '../../config/check-facts.ts'
import { LastCompiled } from '../../config/compile.ts'
import type { Key, Keys } from '../../config/concern.ts'
import { keysAt } from '../../config/concern.ts'
import { declaredBy } from '../../config/declared.ts'
import { instancesKey } from '../../config/instances.ts'
import { ConfigError, Loader } from '../../config/load.ts'
import type { Config, EdgePolicy } from '../../config/schema.ts'
import { moduleFile } from '../home.ts'
import type { EdgeRoute, Phase } from './attach.ts'
import type { EdgeConcern } from './concern.ts'
import type { EdgeOrder } from './order.ts'
import { OwnPreflights } from './own-preflights.ts'

type Written = Readonly<Record<string, unknown>>

/** Compiled schema, shared by all generations: compiling it at each reload would block the event loop. */
const compiled = new LastCompiled()

/** Phases before the handler, in which a hook can end a request. */
const phasesBeforeHandler = [
  'onRequest',
  'preParsing',
  'preValidation',
  'preHandler'
] as const satisfies readonly Phase[]

export class OwnRoutes {
  readonly #fastify: FastifyInstance
  readonly #config: Config
  readonly #order: EdgeOrder
  readonly #preflights: OwnPreflights
  /** The top-level `edge`. */
  readonly #top: Written
  /** The routes' own hooks, while concerns attach theirs. */
  readonly #ownHooks = new WeakMap<RouteOptions, Partial<Record<Phase, unknown[]>>>()
  #loader: Loader | null = null

  constructor(fastify: FastifyInstance, config: Config, order: EdgeOrder) {
    this.#fastify = fastify
    this.#preflights = new OwnPreflights(fastify)
    this.#config = config
    this.#order = order
    this.#top = { ...config.edge }
  }

  /** Keys that a route can set, including those of users' concerns. */
  get #keys(): readonly Key[] {
    return this.#keysWhere((ownRoutes) => ownRoutes !== 'never')
  }

  #keysWhere(isWanted: (ownRoutes: EdgeConcern['ownRoutes']) => boolean): readonly Key[] {
    const keys = this.#order.concerns.flatMap((concern) => (isWanted(concern.ownRoutes) ? concern.keys : []))
    return keysAt(keys, 'route')
  }

  /** First `onRoute` hook of the edge: computes the concerns of the route, and removes the route's own hooks until `end`. */
  begin = (route: RouteOptions): void => {
    const { config } = route
    if (config?.route !== undefined || config?.unrouted) return
    if (config?.ownRoute === undefined) {
      route.config = { ...config, ownRoute: this.#ownRoute(route.url, this.#policyOf(route)) }
    }
    const ownHooks: Partial<Record<Phase, unknown[]>> = {}
    for (const phase of phasesBeforeHandler) {
      const hooks = route[phase]
      if (hooks === undefined) continue
      ownHooks[phase] = [hooks].flat()
      Reflect.deleteProperty(route, phase)
    }
    this.#ownHooks.set(route, ownHooks)
  }

  #ownRoute(name: string, edge: EdgePolicy): EdgeRoute {
    return Object.freeze({ name, edge, declared: declaredBy(this.#keys, edge) })
  }

  /** Last `onRoute` hook of the edge: appends the route's own hooks, and adds an OPTIONS route if a concern responds to preflights. */
  end = (route: RouteOptions): void => {
    for (const [phase, hooks] of Object.entries(this.#ownHooks.get(route) ?? {})) {
      Object.assign(route, { [phase]: [...[route[phase as Phase] ?? []].flat(), ...hooks] })
    }
    const { ownRoute, preflightFor } = route.config ?? {}
    if (preflightFor !== undefined || !ownRoute?.declared.answersPreflights) return
    this.#preflights.add(route, this.#ownRoute(ownRoute.name, this.#preflightPolicy(ownRoute.edge)))
  }

  /** Returns the options of the concerns that respond to preflights, and of those that apply to all own routes. */
  #preflightPolicy(edge: EdgePolicy): EdgePolicy {
    const keys = this.#order.concerns.flatMap((concern) =>
      concern.keys.filter(({ answersPreflights }) => answersPreflights || concern.ownRoutes === 'always')
    )
    return Object.fromEntries(keys.map(({ name }) => [name, Reflect.get(edge, name)]))
  }

  #policyOf({ config, method, url }: RouteOptions): EdgePolicy {
    const inherited = config?.guarded ? this.#keys : this.#keysWhere((ownRoutes) => ownRoutes === 'always')
    const policy = Object.fromEntries(inherited.map(({ name }) => [name, this.#top[name]]))
    try {
      const whole = config?.edge === undefined ? policy : { ...policy, ...this.#read(config.edge, url) }
      const early = Object.entries(whole).find(([name, value]) => value && !this.#order.hasStarted(name))
      if (early !== undefined) throw new Error(`edge.${early[0]}: list its plugin before this one under "plugins"`)
      const [lack] = missingFacts(this.#keys, whole, this.#isProvided)
      if (lack !== undefined) {
        const option = lack.option === undefined ? '' : `.${lack.option}`
        throw new Error(`config.edge.${lack.key.name}${option}: ${lack.message}`)
      }
      return whole
    } catch (error) {
      const why = error instanceof ConfigError ? error.faults.map(textOf).join('; ') : (error as Error).message
      throw new Error(`route ${[method].flat().join(',')} ${url}: ${why}`, { cause: error })
    }
  }

  /** Returns whether a plugin's hooks provide the consumer, and so may provide claims, on the route that is being added. */
  readonly #isProvided = (): boolean => {
    const loading = this.#fastify.hasDecorator('faultOwners') ? this.#fastify.faultOwners.loading : null
    if (loading?.provides.includes('consumer')) return true
    return this.#config.plugins.some(
      ({ provides, scope, prefix }) => scope === 'all' && prefix === undefined && provides?.includes('consumer')
    )
  }

  /** Validates the `config.edge` of a route in the same way as `routes[].edge`. */
  #read(edge: unknown, url: string): EdgePolicy {
    if (typeof edge !== 'object' || edge === null || Array.isArray(edge)) {
      throw new Error('config.edge: expected a mapping, as routes[].edge is')
    }
    const top = this.#top
    const isTop = ([name, value]: [string, unknown]) => value === true && Boolean(top[name]) && top[name] !== true
    const entries = Object.entries(edge)
    const taken = Object.fromEntries(entries.filter(isTop).map(([name]) => [name, top[name]]))
    const written = Object.fromEntries(entries.filter((entry) => !isTop(entry)))
    for (const { name } of this.#keys) {
      if (written[name] !== true || this.#acceptsTrue(name)) continue
      throw new Error(`config.edge.${name}: true takes the options of the top-level edge.${name}, which is off`)
    }
    const { routes } = this.#loadRoute(written, pathOf(url))
    const read = routes[0]!.edge as Written
    return { ...taken, ...Object.fromEntries(Object.keys(written).map((name) => [name, read[name]])) }
  }

  /** Returns whether `true` is itself a value of a key. */
  #acceptsTrue(name: string): boolean {
    try {
      this.#loadRoute({ [name]: true }, '/')
      return true
    } catch {
      return false
    }
  }

  #loadRoute(edge: object, path: string): Config {
    return this.#load({
      listen: this.#config.listeners.map(({ name, path, host }) => ({
        name,
        ...(path ? { path } : { host, port: 0 })
      })),
      ...(this.#config.redis && { redis: { url: 'redis://localhost' } }),
      services: { own: { instances: ['http://localhost'] } },
      routes: [{ name: 'own', match: { path }, service: 'own', edge }],
      // Satisfies the loader's check of `provides`; `#policyOf` checks it later with the plugins of the route.
      plugins: [{ path: moduleFile('app.ts'), provides: ['consumer'] }]
    })
  }

  #load(document: object): Config {
    this.#loader ??= new Loader(
      { edge: this.#keys, mesh: [], sources: [instancesKey] } satisfies Keys,
      new Map(),
      compiled
    )
    const text = JSON.stringify(document, (key, value: unknown) => {
      if (typeof value === 'function') throw new Error(`config.edge: ${key} is a function`)
      return value
    })
    // The text comes from code: escape `${`, so that the loader substitutes no variables.
    return this.#loader.parse(
      text.replaceAll('${', () => '$${'),
      this.#config.file,
      {}
    )
  }
}

function textOf({ path, message }: { path: string; message: string }): string {
  return `${path.replace(/^routes\[0\]\./, 'config.')}: ${message}`
}

/** Returns a path for `match.path` with the parameters of a route's URL, whose other syntax the configuration may not know. */
function pathOf(url: string): string {
  const plain = url.replaceAll('::', '')
  const names = new Set(Array.from(plain.matchAll(/:(\w+)/g), ([, name]) => `:${name}`))
  return `/${[...names, ...(plain.includes('*') ? ['*'] : [])].join('/')}`
}
