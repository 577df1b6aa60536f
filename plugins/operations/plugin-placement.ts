import type { FastifyInstance, RouteOptions } from 'fastify'
import type { PluginOwner } from './fault-owners.ts'
import type { Code, RequestHook } from './guarded-hook.ts'

/**
 * Hooks that a plugin adds to the gateway's context, kept apart to be attached to routes one by one: to those that name
 * the plugin, or at the plugin's position among the edge's concerns. Fastify itself would run them on every request,
 * before all hooks of routes.
 */
export class PluginPlacement {
  readonly #fastify: FastifyInstance
  readonly #owner: PluginOwner
  readonly #hooks: (readonly [name: RequestHook, hook: Code])[] = []
  readonly #onRoute: Code[] = []
  /** Routes that were there before the plugin had added all of its hooks. */
  #earlier: RouteOptions[] = []
  #isComplete = false

  constructor(fastify: FastifyInstance, owner: PluginOwner) {
    this.#fastify = fastify
    this.#owner = owner
  }

  get isEmpty(): boolean {
    return this.#hooks.length + this.#onRoute.length === 0
  }

  /** Adds a hook, which routes get that are there already: as in Fastify, the order of hooks and routes is free. */
  addHook(name: RequestHook, hook: Code): void {
    this.#hooks.push([name, hook])
    for (const route of this.#earlier) this.#append(route, name, hook)
  }

  addOnRoute(hook: Code): void {
    this.#onRoute.push(hook)
  }

  /** Attaches the hooks to a route that they are for. */
  attachTo(route: RouteOptions): void {
    if (!this.#isFor(route)) return
    for (const [name, hook] of this.#hooks) this.#append(route, name, hook)
    for (const hook of this.#onRoute) Reflect.apply(hook, this.#fastify, [route])
    if (!this.#isComplete) this.#earlier.push(route)
  }

  /** Ends the time in which the plugin can add hooks. */
  complete(): void {
    this.#isComplete = true
    this.#earlier = []
  }

  #isFor({ config }: RouteOptions): boolean {
    const { owners, plugin, routes } = this.#owner
    // There for requests that no route takes.
    if (config?.unrouted) return false
    if (routes === null) return true
    return config?.route === undefined
      ? owners.loading === this.#owner
      : Boolean(config.route.plugins?.includes(plugin))
  }

  /** Appends a hook to a route. Copies the list: routes may have been given the same one. */
  #append(route: RouteOptions, name: RequestHook, hook: Code): void {
    const before: unknown = route[name]
    Object.assign(route, { [name]: [...[before ?? []].flat(), hook] })
    this.#fastify.pluginRecord.addRouteHook(this.#owner, name, route)
  }
}
