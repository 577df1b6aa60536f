import type { RouteOptions } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import type { EdgePolicy } from '../../config/schema.ts'
import { constraintKey } from '../constraint-key.ts'
import type { PluginOwner } from './fault-owners.ts'
import type { RequestHook } from './guarded-hook.ts'

/** Routes that a plugin added by itself and that differ in their methods alone. */
export interface OwnRoute {
  readonly plugin: string
  readonly path: string
  readonly methods: readonly string[]
  readonly constraints: Readonly<Record<string, unknown>>
  /** Options of the edge's concerns on the route. */
  readonly edge: EdgePolicy
  readonly plugins: readonly PluginHooks[]
}

/** The hooks of a plugin that run for a route. */
export interface PluginHooks {
  readonly plugin: string
  /** Position among the edge's concerns; null without one. */
  readonly order: PluginOwner['order']
  /** Hooks that run on every request, before all hooks of routes. */
  readonly everywhere: readonly RequestHook[]
  /** Hooks of the route. */
  readonly here: readonly RequestHook[]
}

/** Hooks and routes that plugins have added to the gateway, for `routes` and the admin API. */
export class PluginRecord {
  /** Runs each `onReady` hook; rejects with the fault of its plugin. */
  readonly readyHooks: (() => Promise<void>)[] = []
  /** Entries whose plugins run nowhere, with their places in the file. */
  readonly warnings: Fault[] = []
  readonly routes: { readonly owner: PluginOwner; readonly route: RouteOptions }[] = []
  /** Contexts of these routes: the gateway's own, or one below it. */
  readonly #contexts = new Map<RouteOptions, object>()
  /** Hooks of contexts below the gateway's, which run for the routes of the context and of those below it. */
  readonly #ofContext = new Map<object, (readonly [owner: PluginOwner, hook: RequestHook])[]>()
  readonly #owners: PluginOwner[] = []
  readonly #hooked = new Set<PluginOwner>()
  readonly #responding = new Set<PluginOwner>()
  readonly #everywhere = new Map<PluginOwner, Set<RequestHook>>()
  /** Owner and hook by turns. By the route's name, as there are many of these; other routes by themselves. */
  readonly #here = new Map<string | RouteOptions, (PluginOwner | RequestHook)[]>()

  addOwner(owner: PluginOwner): void {
    this.#owners.push(owner)
    this.#everywhere.set(owner, new Set())
  }

  addHook(owner: PluginOwner, hook: RequestHook): void {
    this.#everywhere.get(owner)?.add(hook)
  }

  /** Adds a route that a plugin added by itself. */
  addRoute(owner: PluginOwner, route: RouteOptions, context: object): void {
    this.routes.push({ owner, route })
    this.#contexts.set(route, context)
  }

  addContextHook(owner: PluginOwner, hook: RequestHook, context: object): void {
    const hooks = this.#ofContext.get(context) ?? []
    hooks.push([owner, hook])
    this.#ofContext.set(context, hooks)
  }

  /** Notes that a plugin has hooks for the routes of a context of its own. */
  noteHooked(owner: PluginOwner): void {
    this.#hooked.add(owner)
  }

  noteNotFoundHandler(owner: PluginOwner): void {
    this.#responding.add(owner)
  }

  /** Returns whether a plugin in a context of its own has hooks there, and neither routes nor a not-found handler. */
  isIdle(owner: PluginOwner): boolean {
    const responds = this.#responding.has(owner) || this.routes.some((each) => each.owner === owner)
    return this.#hooked.has(owner) && !responds
  }

  /** Hooks of the contexts of a plugin's own route, outermost first. A context's prototype is the one above it. */
  #hooksAround(route: RouteOptions): (readonly [owner: PluginOwner, hook: RequestHook])[] {
    const found: (readonly [owner: PluginOwner, hook: RequestHook])[] = []
    let context = this.#contexts.get(route) ?? null
    for (; context !== null; context = Object.getPrototypeOf(context) as object | null) {
      found.unshift(...(this.#ofContext.get(context) ?? []))
    }
    return found
  }

  addRouteHook(owner: PluginOwner, hook: RequestHook, route: RouteOptions): void {
    // Preflights have a route besides.
    if (route.config?.preflightFor !== undefined) return
    const key = route.config?.route?.name ?? route
    const hooks = this.#here.get(key)
    if (hooks === undefined) this.#here.set(key, [owner, hook])
    else hooks.push(owner, hook)
  }

  /** Hooks that run for a configured route, given its name, or for a plugin's own route. */
  hooksOf(key: string | RouteOptions): PluginHooks[] {
    const added = this.#here.get(key) ?? []
    const around = typeof key === 'string' ? [] : this.#hooksAround(key)
    return this.#owners.flatMap((owner) => {
      const everywhere = [...this.#everywhere.get(owner)!]
      const ofRoute = added.filter((_, index) => index % 2 === 1 && added[index - 1] === owner)
      const ofContexts = around.flatMap(([of, hook]) => (of === owner ? hook : []))
      const here = [...new Set([...ofRoute, ...ofContexts])]
      const { plugin, order } = owner
      return everywhere.length + here.length === 0 ? [] : [{ plugin, order, everywhere, here: here as RequestHook[] }]
    })
  }

  /** The `hookTimeout` of each plugin with a hook on a configured route, in milliseconds. */
  hookTimeoutsOf(route: string, hook: RequestHook): number[] {
    const added = this.#here.get(route) ?? []
    const isHere = (owner: PluginOwner) => added.some((each, index) => each === hook && added[index - 1] === owner)
    const owners = this.#owners.filter((owner) => this.#everywhere.get(owner)!.has(hook) || isHere(owner))
    return owners.map(({ hookTimeoutMs }) => hookTimeoutMs)
  }

  /** The `hookTimeout` of a plugin, in milliseconds; undefined if there is no such plugin. */
  hookTimeoutOf(plugin: string): number | undefined {
    return this.#owners.find((owner) => owner.plugin === plugin)?.hookTimeoutMs
  }

  /** Routes that plugins added by themselves; those that differ in their methods alone are one. */
  ownRoutes(): OwnRoute[] {
    const found = new Map<string, OwnRoute & { methods: string[] }>()
    for (const { owner, route } of this.routes) {
      const { url: path, method, constraints = {} } = route
      const edge = route.config?.ownRoute?.edge ?? {}
      const plugins = this.hooksOf(route)
      const key = JSON.stringify([owner.plugin, path, constraintKey(constraints), edge, plugins])
      const methods = [method].flat()
      const same = found.get(key)
      if (same === undefined) found.set(key, { plugin: owner.plugin, path, methods, constraints, edge, plugins })
      else same.methods.push(...methods)
    }
    return [...found.values()]
  }
}

/** Hooks of plugins, for people: `audit (onRequest), auth (onRequest after cors)`. */
export function hooksText(plugins: readonly PluginHooks[]): string {
  const texts = plugins.map(({ plugin, order, everywhere, here }) => {
    const [where, concern] = Object.entries(order ?? {})[0] ?? []
    const position = where === undefined ? '' : ` ${where} ${concern}`
    return `${plugin} (${[...new Set([...everywhere, ...here])].join(', ')}${position})`
  })
  return texts.join(', ') || '–'
}
