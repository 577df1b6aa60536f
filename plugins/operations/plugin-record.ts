import type { RouteOptions } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import type { EdgePolicy } from '../../config/schema.ts'
import { constraintKey } from '../constraint-key.ts'
import type { PluginOwner } from './fault-owners.ts'
import type { RequestHook } from './guarded-hook.ts'

/** Routes that a plugin added and that differ only in their methods. */
interface OwnRoute {
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
  /** Position among the edge concerns; null if none is set. */
  readonly order: PluginOwner['order']
  /** Hooks of the gateway's context: they run on every request, before all hooks of routes. */
  readonly everywhere: readonly RequestHook[]
  /** Hooks of this route and of its encapsulated contexts. */
  readonly here: readonly RequestHook[]
}

/** Record of the hooks and routes that plugins have added, for `routes`, `explain` and the admin API. */
export class PluginRecord {
  /** `onReady` hooks of plugins; each rejects with the fault of its plugin. */
  readonly readyHooks: (() => Promise<void>)[] = []
  /** Warnings about plugins without effect, with their positions in the file. */
  readonly warnings: Fault[] = []
  /** Failures of `onClose` hooks, with the positions of their plugins in the file. */
  readonly closeFaults: Fault[] = []
  readonly routes: { readonly owner: PluginOwner; readonly route: RouteOptions }[] = []
  /** Fastify contexts of these routes: that of the gateway, or one below it. */
  readonly #contexts = new Map<RouteOptions, object>()
  /** Hooks of contexts below the gateway's. They run for routes of their context and of contexts below it. */
  readonly #ofContext = new Map<object, (readonly [owner: PluginOwner, hook: RequestHook])[]>()
  readonly #owners: PluginOwner[] = []
  readonly #hooked = new Set<PluginOwner>()
  readonly #responding = new Set<PluginOwner>()
  readonly #everywhere = new Map<PluginOwner, Set<RequestHook>>()
  /** Flat lists of owner, hook, owner, hook …. Keyed by name for configured routes, which are many, else by the route's options. */
  readonly #here = new Map<string | RouteOptions, (PluginOwner | RequestHook)[]>()

  addOwner(owner: PluginOwner): void {
    this.#owners.push(owner)
    this.#everywhere.set(owner, new Set())
  }

  addHook(owner: PluginOwner, hook: RequestHook): void {
    this.#everywhere.get(owner)?.add(hook)
  }

  /** Records a route that a plugin added. */
  addRoute(owner: PluginOwner, route: RouteOptions, context: object): void {
    this.routes.push({ owner, route })
    this.#contexts.set(route, context)
  }

  addContextHook(owner: PluginOwner, hook: RequestHook, context: object): void {
    const hooks = this.#ofContext.get(context) ?? []
    hooks.push([owner, hook])
    this.#ofContext.set(context, hooks)
  }

  /** Records that a plugin has hooks in an encapsulated context. */
  noteHooked(owner: PluginOwner): void {
    this.#hooked.add(owner)
  }

  noteNotFoundHandler(owner: PluginOwner): void {
    this.#responding.add(owner)
  }

  /** Returns whether a plugin in an encapsulated context has hooks there, but neither routes nor a not-found handler. */
  isIdle(owner: PluginOwner): boolean {
    const responds = this.#responding.has(owner) || this.routes.some((each) => each.owner === owner)
    return this.#hooked.has(owner) && !responds
  }

  /** Returns the context hooks of a plugin's route, outermost first. The prototype of a context is its parent context. */
  #contextHooksOf(route: RouteOptions): (readonly [owner: PluginOwner, hook: RequestHook])[] {
    const found: (readonly [owner: PluginOwner, hook: RequestHook])[] = []
    let context = this.#contexts.get(route) ?? null
    for (; context !== null; context = Object.getPrototypeOf(context) as object | null) {
      found.unshift(...(this.#ofContext.get(context) ?? []))
    }
    return found
  }

  addRouteHook(owner: PluginOwner, hook: RequestHook, route: RouteOptions): void {
    // The extra Fastify route for preflights is not listed.
    if (route.config?.preflightFor !== undefined) return
    const key = route.config?.route?.name ?? route
    const hooks = this.#here.get(key)
    if (hooks === undefined) this.#here.set(key, [owner, hook])
    else hooks.push(owner, hook)
  }

  /** Returns the hooks that run for a configured route, by its name, or for a plugin's route. */
  hooksOf(key: string | RouteOptions): PluginHooks[] {
    const added = this.#here.get(key) ?? []
    const around = typeof key === 'string' ? [] : this.#contextHooksOf(key)
    return this.#owners.flatMap((owner) => {
      const everywhere = [...this.#everywhere.get(owner)!]
      const ofRoute = added.filter((_, index) => index % 2 === 1 && added[index - 1] === owner)
      const ofContexts = around.flatMap(([of, hook]) => (of === owner ? hook : []))
      const here = [...new Set([...ofRoute, ...ofContexts])]
      const { plugin, order } = owner
      return everywhere.length + here.length === 0 ? [] : [{ plugin, order, everywhere, here: here as RequestHook[] }]
    })
  }

  /** Returns the `hookTimeout` of each plugin with this hook on a configured route, in milliseconds. */
  hookTimeoutsOf(route: string, hook: RequestHook): number[] {
    const added = this.#here.get(route) ?? []
    const isHere = (owner: PluginOwner) => added.some((each, index) => each === hook && added[index - 1] === owner)
    const owners = this.#owners.filter((owner) => this.#everywhere.get(owner)!.has(hook) || isHere(owner))
    return owners.map(({ hookTimeoutMs }) => hookTimeoutMs)
  }

  /** Returns the `hookTimeout` of a plugin in milliseconds; undefined if there is no such plugin. */
  hookTimeoutOf(plugin: string): number | undefined {
    return this.#owners.find((owner) => owner.plugin === plugin)?.hookTimeoutMs
  }

  /** Returns the routes that plugins added; routes that differ only in their methods are one item. */
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

/** Formats hooks of plugins: `audit (onRequest), auth (onRequest after cors)`. */
export function hooksText(plugins: readonly PluginHooks[]): string {
  const texts = plugins.map(({ plugin, order, everywhere, here }) => {
    const [where, concern] = Object.entries(order ?? {})[0] ?? []
    const position = where === undefined ? '' : ` ${where} ${concern}`
    return `${plugin} (${[...new Set([...everywhere, ...here])].join(', ')}${position})`
  })
  return texts.join(', ') || '–'
}
