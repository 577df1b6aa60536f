import type { FastifyInstance, RouteOptions } from 'fastify'
import type { PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-handler.ts'
import type { RequestHook } from './guarded-hook.ts'
import { requestHooks } from './guarded-hook.ts'

/**
 * Collects the hooks that a plugin adds to the gateway's context, and attaches them to single routes: to routes that list the
 * plugin, or at the plugin's position among the edge concerns. Fastify itself would run them on every request, before all
 * hooks of routes.
 */
export class PluginPlacement {
  readonly #fastify: FastifyInstance
  readonly #owner: PluginOwner
  readonly #hooks: (readonly [name: RequestHook, hook: Code])[] = []
  readonly #onRoute: Code[] = []
  /** Routes that were added before the plugin had added all of its hooks. */
  #earlier: RouteOptions[] = []
  /** Placeholder in the hook lists of these routes, before which later hooks are inserted. A hook without effect. */
  readonly #mark: Code = (...args: unknown[]) => (args.at(-1) as () => void)()
  #isComplete = false

  constructor(fastify: FastifyInstance, owner: PluginOwner) {
    this.#fastify = fastify
    this.#owner = owner
  }

  get isEmpty(): boolean {
    return this.#hooks.length + this.#onRoute.length === 0
  }

  /** Adds a hook, also to routes that exist already: as in Fastify, hooks and routes may be added in any order. */
  addHook(name: RequestHook, hook: Code): void {
    this.#hooks.push([name, hook])
    for (const route of this.#earlier) this.#insert(route, name, hook)
  }

  addOnRoute(hook: Code): void {
    this.#onRoute.push(hook)
  }

  /** Attaches the hooks to a route if they apply to it. */
  attachTo(route: RouteOptions): void {
    if (!this.#isFor(route)) return
    for (const [name, hook] of this.#hooks) this.#append(route, name, hook)
    for (const hook of this.#onRoute) Reflect.apply(hook, this.#fastify, [route])
    if (this.#isComplete) return
    this.#earlier.push(route)
    for (const name of requestHooks) Object.assign(route, { [name]: [...listOf(route, name), this.#mark] })
  }

  /** Ends the phase in which the plugin can add hooks: removes the placeholders. */
  complete(): void {
    this.#isComplete = true
    for (const route of this.#earlier) {
      for (const name of requestHooks) {
        const hooks = listOf(route, name).filter((hook) => hook !== this.#mark)
        if (hooks.length > 0) Object.assign(route, { [name]: hooks })
        else Reflect.deleteProperty(route, name)
      }
    }
    this.#earlier = []
  }

  #isFor({ config }: RouteOptions): boolean {
    const { owners, plugin, routes } = this.#owner
    // The Fastify route for requests that match no route.
    if (config?.unrouted) return false
    if (routes === null) return true
    return config?.route === undefined
      ? owners.loading === this.#owner
      : Boolean(config.route.plugins?.includes(plugin))
  }

  /** Appends a hook to a route. The list is copied, since several routes may share it. */
  #append(route: RouteOptions, name: RequestHook, hook: Code): void {
    Object.assign(route, { [name]: [...listOf(route, name), hook] })
    this.#fastify.pluginRecord.addRouteHook(this.#owner, name, route)
  }

  /** Inserts a hook into a route at the plugin's position. */
  #insert(route: RouteOptions, name: RequestHook, hook: Code): void {
    const hooks = listOf(route, name)
    const index = hooks.indexOf(this.#mark)
    if (index === -1) {
      const text = `${[route.method].flat().join(',')} ${route.url}`
      const { plugin } = this.#owner
      throw new Error(`another plugin has replaced the ${name} hooks of ${text}: list that plugin after ${plugin}`)
    }
    Object.assign(route, { [name]: hooks.toSpliced(index, 0, hook) })
    this.#fastify.pluginRecord.addRouteHook(this.#owner, name, route)
  }
}

const listOf = (route: RouteOptions, name: RequestHook): Code[] =>
  [(route[name] as Code | Code[] | undefined) ?? []].flat()
