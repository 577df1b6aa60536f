/**
 * Routes that plugins add by themselves. They are logged and counted as configured routes are. The other concerns apply
 * if the route asks for them by its `config.edge`, or all of them if its plugin is `guarded`. Either way they come before
 * the hooks that the route has of its own.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { lacksIn } from '../../config/check-facts.ts'
import { LastCompiled } from '../../config/compile.ts'
import type { Key, Keys } from '../../config/concern.ts'
import { keysAt } from '../../config/concern.ts'
import { declaredBy } from '../../config/declared.ts'
import { ConfigError, Loader } from '../../config/load.ts'
import type { Config, EdgePolicy } from '../../config/schema.ts'
import type { EdgeRoute, Phase } from './attach.ts'
import type { EdgeConcern } from './concern.ts'
import type { EdgeOrder } from './order.ts'
import { OwnPreflights } from './own-preflights.ts'

type Written = Readonly<Record<string, unknown>>

/** For the gateways of all configurations: compiling would block the event loop at each reload. */
const compiled = new LastCompiled()

/** Phases in which a hook can keep a request from what comes after it. */
const inTheWay = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const satisfies readonly Phase[]

export class OwnRoutes {
  readonly #fastify: FastifyInstance
  readonly #config: Config
  readonly #order: EdgeOrder
  readonly #preflights: OwnPreflights
  /** The top-level `edge`. */
  readonly #top: Written
  /** Hooks that routes have of their own, while concerns attach theirs. */
  readonly #aside = new WeakMap<RouteOptions, Partial<Record<Phase, unknown[]>>>()
  #loader: Loader | null = null

  constructor(fastify: FastifyInstance, config: Config, order: EdgeOrder) {
    this.#fastify = fastify
    this.#preflights = new OwnPreflights(fastify)
    this.#config = config
    this.#order = order
    this.#top = { ...config.edge }
  }

  /** Keys that a route can set, those of users' concerns included. */
  get #keys(): readonly Key[] {
    return this.#keysWhere((ownRoutes) => ownRoutes !== 'never')
  }

  #keysWhere(isWanted: (ownRoutes: EdgeConcern['ownRoutes']) => boolean): readonly Key[] {
    const keys = this.#order.concerns.flatMap((concern) => (isWanted(concern.ownRoutes) ? concern.keys : []))
    return keysAt(keys, 'route')
  }

  /** The first of the edge's `onRoute` hooks: settles what applies to the route, and puts its own hooks aside. */
  begin = (route: RouteOptions): void => {
    const { config } = route
    if (config?.route !== undefined || config?.unrouted) return
    if (config?.ownRoute === undefined) {
      route.config = { ...config, ownRoute: this.#ownRoute(route.url, this.#policyOf(route)) }
    }
    const aside: Partial<Record<Phase, unknown[]>> = {}
    for (const phase of inTheWay) {
      const hooks = route[phase]
      if (hooks === undefined) continue
      aside[phase] = [hooks].flat()
      Reflect.deleteProperty(route, phase)
    }
    this.#aside.set(route, aside)
  }

  #ownRoute(name: string, edge: EdgePolicy): EdgeRoute {
    return Object.freeze({ name, edge, declared: declaredBy(this.#keys, edge) })
  }

  /** The last one: appends them, and adds a route for preflights that a concern answers. */
  end = (route: RouteOptions): void => {
    for (const [phase, hooks] of Object.entries(this.#aside.get(route) ?? {})) {
      Object.assign(route, { [phase]: [...[route[phase as Phase] ?? []].flat(), ...hooks] })
    }
    const { ownRoute, preflightFor } = route.config ?? {}
    if (preflightFor !== undefined || !ownRoute?.declared.answersPreflights) return
    this.#preflights.add(route, this.#ownRoute(ownRoute.name, this.#preflightPolicy(ownRoute.edge)))
  }

  /** Returns the options of the concerns that answer preflights, and of those that apply to all own routes. */
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
      const whole = config?.edge === undefined ? policy : { ...policy, ...this.#read(config.edge) }
      const early = Object.entries(whole).find(([name, value]) => value && !this.#order.hasStarted(name))
      if (early !== undefined) throw new Error(`edge.${early[0]}: its plugin has to be listed before this one`)
      const [lack] = lacksIn(this.#keys, whole, this.#isProvided)
      if (lack !== undefined) throw new Error(`config.edge.${lack.key.name}.${lack.option}: ${lack.message}`)
      return whole
    } catch (error) {
      const why = error instanceof ConfigError ? error.faults.map(textOf).join('; ') : (error as Error).message
      throw new Error(`route ${[method].flat().join(',')} ${url}: ${why}`, { cause: error })
    }
  }

  /** Returns whether hooks of a plugin provide a fact on the route that is being added. */
  readonly #isProvided = (fact: 'consumer'): boolean => {
    const loading = this.#fastify.hasDecorator('faultOwners') ? this.#fastify.faultOwners.loading : null
    if (loading?.provides.includes(fact)) return true
    return this.#config.plugins.some(
      ({ provides, scope, prefix }) => scope === 'all' && prefix === undefined && provides?.includes(fact)
    )
  }

  /** Validates what a route sets as the configuration's loader does for `routes[].edge`. */
  #read(edge: unknown): EdgePolicy {
    if (typeof edge !== 'object' || edge === null || Array.isArray(edge)) {
      throw new Error('config.edge: expected a mapping, as routes[].edge is')
    }
    const top = this.#top
    const isTop = ([name, value]: [string, unknown]) => value === true && Boolean(top[name]) && top[name] !== true
    const entries = Object.entries(edge)
    const taken = Object.fromEntries(entries.filter(isTop).map(([name]) => [name, top[name]]))
    const written = Object.fromEntries(entries.filter((entry) => !isTop(entry)))
    for (const { name, default: ofKey } of this.#keys) {
      if (written[name] !== true || typeof ofKey === 'boolean') continue
      throw new Error(`config.edge.${name}: true takes the options of the top-level edge.${name}, which is off`)
    }
    const { routes } = this.#load({
      listen: this.#config.listeners.map(({ name, path, host }) => ({
        name,
        ...(path ? { path } : { host, port: 0 })
      })),
      ...(this.#config.redis && { redis: { url: 'redis://localhost' } }),
      services: { own: { instances: ['http://localhost'] } },
      routes: [{ name: 'own', match: { path: '/' }, service: 'own', edge: written }],
      // A later check, which knows all concerns and plugins of the route, tests whether facts are provided.
      plugins: [{ path: import.meta.filename, provides: ['consumer'] }]
    })
    const read = routes[0]!.edge as Written
    return { ...taken, ...Object.fromEntries(Object.keys(written).map((name) => [name, read[name]])) }
  }

  #load(document: object): Config {
    this.#loader ??= new Loader({ edge: this.#keys, mesh: [] } satisfies Keys, new Map(), compiled)
    const text = JSON.stringify(document, (key, value: unknown) => {
      if (typeof value === 'function') throw new Error(`config.edge: ${key} is a function`)
      return value
    })
    // Text of code, in which the loader is to find no variables.
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
