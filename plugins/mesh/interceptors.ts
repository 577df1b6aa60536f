import type { MeshPolicy } from '../../config/schema.ts'
import { concerns } from './chain.ts'
import type { MeshConcern } from './concern.ts'
import type { Layer, LayerContext } from './core/layer.ts'
import type { Repeats } from './core/repeating/repeats.ts'
import type { Service } from './core/service.ts'
import type { Dispatch, DispatchOptions, FaultOwners, Interceptor } from './core/types.ts'
import { containedLayer, containedRepeats, guarded } from './guard/index.ts'

export interface Named {
  readonly name: string
  readonly layer: Layer
  /** Names of the routes that the layer is for; null or absent: all. */
  readonly routes?: ReadonlySet<string> | null
  readonly repeats?: Repeats
  readonly explain?: MeshConcern['explain']
}

/** Composed layers of a service under a policy. */
export interface Chain {
  readonly dispatch: Dispatch
  /** Layers that are on, outermost first, for the lists of `routes` and `explain`. */
  readonly layers: readonly (Pick<Named, 'name' | 'routes'> & { readonly text?: string | null })[]
  /** Error of a layer; absent if none has thrown. */
  readonly failure?: unknown
  /** Chains of the shares of a split, in their order. */
  readonly shares?: readonly Chain[]
}

/** Position beside another concern: at most one of the two keys. */
export interface Order {
  readonly before?: string
  readonly after?: string
}

export interface UseOptions {
  /** `request`: once per call, outside the retries. `attempt`: once per attempt, with the instance in `opts.origin`. */
  per: 'request' | 'attempt'
  /** Name in the log and in lists of the chain. Default: the function's name, else the plugin's. */
  name?: string
  /**
   * Names of the configured routes whose calls the interceptor is for. Default: the routes that name the plugin, for a
   * plugin with `scope: routes`; else all calls, with those that belong to no route.
   */
  routes?: readonly string[]
  /** Names of the services that the interceptor is for. Default: all. */
  services?: readonly string[]
}

/** Configured names, which `use` may refer to. */
interface Names {
  readonly routes?: readonly { readonly name: string }[]
  readonly services: Readonly<Record<string, unknown>>
}

/** Returns a concern's name as a key is written: `circuitBreaker` for `circuit-breaker`. */
const keyOf = (name: string) => name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())

/** A layer, or the position of the plugins' interceptors. */
type Step = Named | 'request' | 'attempt'

/** Layers of a chain: the bundled concerns, and between them the interceptors and concerns of plugins. */
export class Interceptors {
  readonly request: Named[] = []
  readonly attempt: Named[] = []
  readonly #steps: Step[] = [...concerns]
  /** Concerns of plugins, each with the step after which it was placed. */
  readonly #users = new Map<Step, Step | undefined>()
  readonly #owners: FaultOwners | null
  readonly #names: { readonly route: ReadonlySet<string>; readonly service: ReadonlySet<string> }
  /** Variants by the name of the route. */
  #variants = new Map<string, string>()
  #isForSomeRoutes = false

  constructor(owners: FaultOwners | null, { routes = [], services }: Names) {
    this.#owners = owners
    this.#names = { route: new Set(routes.map(({ name }) => name)), service: new Set(Object.keys(services)) }
  }

  get isEmpty(): boolean {
    return this.request.length + this.attempt.length + this.#users.size === 0
  }

  /** All layers, outermost first. */
  get layers(): Named[] {
    return this.#steps.flatMap((step) => (typeof step === 'string' ? this[step] : [step]))
  }

  /**
   * Composes the chain of a service under a policy. Calls each layer once; if one throws, all calls of the chain fail
   * by the same error.
   */
  compose(service: Service, policy: MeshPolicy, context: LayerContext): Chain {
    // Innermost: the connection pool of the instance that `select` chose.
    let dispatch: Dispatch = (opts, handler) => opts.instance!.endpoint.dispatch(opts, handler)
    const layers: Chain['layers'][number][] = []
    const failures: unknown[] = []
    for (const step of this.layers.reverse()) {
      const { name, layer, routes } = step
      try {
        const interceptor = layer(service, policy, context)
        if (interceptor === null) continue
        dispatch = interceptor(dispatch)
        layers.push({ name, ...(routes !== undefined && { routes }), text: step.explain?.(policy, service) ?? null })
      } catch (error) {
        failures.push(error)
        layers.push({ name: `${name} (failed)`, routes })
      }
    }
    layers.reverse()
    if (failures.length === 0) return { dispatch, layers }
    const [failure] = failures
    const fail: Dispatch = () => {
      throw failure
    }
    return { dispatch: fail, layers, failure }
  }

  /** Declarations of the concerns that send requests again. */
  get repeats(): Repeats[] {
    return this.#steps.flatMap((step) => (typeof step === 'string' ? [] : (step.repeats ?? [])))
  }

  /**
   * Adds a concern. Throws after the first request (`isLate`), if no concern has the name in `order`, or if a concern
   * that sends requests again is placed before `replay`, where their bodies are not buffered.
   */
  addConcern({ name, layer, repeats }: MeshConcern, order: Order, isLate: boolean): void {
    if (isLate) throw new Error(`mesh.add: add concern ${name} before the first request, not after it`)
    const index = this.#placeOf(
      order,
      repeats === undefined ? this.#steps.indexOf('request') : this.#endAfter(this.#find('replay'))
    )
    if (repeats !== undefined && index <= this.#find('replay')) {
      throw new Error(`order: ${name} sends requests again, so it must come after replay, which keeps their bodies`)
    }
    const plugin = this.#owners?.current?.plugin ?? null
    const names = { name, plugin, per: index > this.#find('select') ? 'attempt' : 'request' } as const
    const contained = repeats && { repeats: containedRepeats(repeats, names) }
    const step = { name, layer: containedLayer(layer, names), ...contained }
    this.#users.set(step, order.after === undefined ? undefined : this.#steps[this.#find(order.after)])
    this.#steps.splice(index, 0, step)
  }

  #find(name: string): number {
    return this.#steps.findIndex((step) => typeof step !== 'string' && keyOf(step.name) === keyOf(name))
  }

  #placeOf({ before, after }: Order, usual: number): number {
    const wanted = before ?? after
    if (wanted === undefined) return usual
    const found = this.#find(wanted)
    if (found !== -1) return after === undefined ? found : this.#endAfter(found)
    const names = this.#steps.flatMap((step) => (typeof step === 'string' ? [] : [step.name]))
    throw new Error(`order: no mesh concern is named "${wanted}"; there are ${names.join(', ')}`)
  }

  /** Returns the index after a step and the plugins' steps placed after it, so that these keep their order. */
  #endAfter(index: number): number {
    const step = this.#steps[index]!
    if (!this.#users.has(step)) {
      const next = this.#steps.findIndex((each, at) => at > index && !this.#users.has(each))
      return next === -1 ? this.#steps.length : next
    }
    const last = this.#steps.findLastIndex((each) => this.#users.get(each) === step)
    return last === -1 ? index + 1 : this.#endAfter(last)
  }

  /**
   * Adds an interceptor. Throws after the first request, if it is not a function, or if the options are missing or name a
   * route or service that is not configured.
   */
  add(interceptor: Interceptor, options: UseOptions, isLate: boolean): void {
    if (typeof interceptor !== 'function' || typeof options !== 'object' || options === null) {
      const found = [interceptor, options].map((value) => (value === null ? 'null' : typeof value)).join(' and ')
      const wanted = 'an interceptor, which is a function, and options with "per": "request" or "attempt"'
      throw new TypeError(`mesh.use takes ${wanted}; found ${found}`)
    }
    const { per, name = interceptor.name, routes, services } = options
    const owner = this.#owners?.current ?? null
    const plugin = owner?.plugin ?? null
    const known = name || plugin || 'interceptor'
    if (per !== 'request' && per !== 'attempt') {
      throw new Error(`mesh.use: interceptor ${known}: "per" must be request or attempt, found "${String(per)}"`)
    }
    if (isLate) throw new Error(`mesh.use: add interceptor ${known} before the first request, not after it`)
    this.#assertKnown('route', routes, known)
    this.#assertKnown('service', services, known)
    owner?.noteInterceptor?.()
    const ofRoutes = routes ?? owner?.routes ?? null
    const only = {
      routes: ofRoutes === null ? null : new Set(ofRoutes),
      services: services === undefined ? null : new Set(services)
    }
    const layer = guarded(interceptor, { name: known, plugin, per }, only)
    this[per].push({ name: known, layer, routes: only.routes })
    if (only.routes !== null) this.#isForSomeRoutes = true
    this.#variants = new Map()
  }

  #assertKnown(kind: 'route' | 'service', names: readonly string[] = [], interceptor: string): void {
    const unknown = names.find((name) => !this.#names[kind].has(name))
    if (unknown !== undefined) throw new Error(`mesh.use: interceptor ${interceptor}: no ${kind} is named "${unknown}"`)
  }

  /** Returns a key of the interceptors that apply to a call's route; undefined if all calls have the same. */
  variantOf({ route }: DispatchOptions): string | undefined {
    if (!this.#isForSomeRoutes) return undefined
    const name = route?.name ?? ''
    let variant = this.#variants.get(name)
    if (variant === undefined) {
      variant = [...this.request, ...this.attempt]
        .map(({ routes }) => (routes?.has(name) === false ? '0' : '1'))
        .join('')
      this.#variants.set(name, variant)
    }
    return variant
  }
}
