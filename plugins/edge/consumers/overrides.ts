/**
 * Options of a concern that consumers have (`consumers[].edge`): the hooks for them run in place of those for the options of
 * the route, and also on routes on which the concern is off. They are made when a request first needs them, once for equal
 * options of a route.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { TSchema } from 'typebox'
import { lacksBridge } from '../../../config/check-facts.ts'
import type { Key } from '../../../config/concern.ts'
import { Off } from '../../../config/schema/kit.ts'
import type { Config } from '../../../config/schema.ts'
import type { Phase } from '../attach.ts'
import type { PhaseHook } from '../route-hooks.ts'
import { attachAll } from '../route-hooks.ts'
import type { Consumer } from './consumer.ts'
import type { AnyHook } from './hook-chain.ts'
import { attachChained, attachWaiting } from './hook-chain.ts'
import { mayKnowConsumers } from './identified.ts'

/** Declares that consumers may override a concern. */
export interface ForConsumers {
  /**
   * Phases of the hooks that the consumer's options replace: those in which the consumer is known. In these phases the concern
   * has one hook each, not a list. Hooks of other phases are always those for the route's options.
   */
  readonly phases: readonly Phase[]
  /** Schema of a consumer's options. Default: that of the concern. */
  readonly options?: TSchema
  /** True if the options of the consumer apply besides those of the route, which decide before the consumer is known. */
  readonly isAdded?: true
  /** True if the consumer's options apply only on routes that enable the concern. */
  readonly needsRoute?: true
  /**
   * Options of a route that have no effect. Present if the hooks for a route look at the options of the consumer themselves:
   * then they are never replaced, and routes without the concern have the hooks for these options.
   */
  readonly neutral?: unknown
}

type OverriddenKey = Pick<Key, 'name' | 'needsBridge' | 'authenticates' | 'provides'>
type Make = (options: unknown) => readonly PhaseHook[]
type ByPhase = ReadonlyMap<Phase, AnyHook>

const none: ByPhase = new Map()

/** Most options whose hooks a concern keeps, on all routes together. */
const MOST = 10_000

/** Returns whether the consumers are not all known when the configuration is loaded. */
export const areOpen = ({ consumers: { file, stored }, plugins = [] }: Config): boolean =>
  file !== null || stored !== null || plugins.some(({ provides }) => provides?.includes('consumer'))

const ownOf = ({ consumers }: Config, key: string): unknown[] =>
  consumers.list.map(({ edge }): unknown => edge && Reflect.get(edge, key)).filter((own) => own !== undefined)

/** Returns whether a consumer may have its own options of a concern while the configuration is in use. */
export const mayOverride = (config: Config, key: string): boolean => areOpen(config) || ownOf(config, key).length > 0

/** Returns whether a consumer may switch a concern on while the configuration is in use. */
const maySwitchOn = (config: Config, key: string, { options, needsRoute }: ForConsumers): boolean =>
  options !== Off && !needsRoute && (areOpen(config) || ownOf(config, key).some((own) => own !== false))

/** Explains what a concern would do with a request of a consumer; `explain` does so for given options. */
export function explainFor<E extends { readonly consumer: Consumer | null }>(
  key: string,
  { isAdded, needsRoute }: ForConsumers,
  { consumer }: E,
  explain: (options: unknown) => string | null,
  options: unknown
): string | null {
  const usual = options === null ? null : explain(options)
  const own: unknown = consumer === null ? undefined : Reflect.get(consumer.edge, key)
  if (own === undefined || (options === null && (own === false || needsRoute))) return usual
  const ofConsumer = `${own === false ? 'off' : (explain(own) ?? 'on')} (by consumers[].edge of ${consumer!.id})`
  return isAdded && usual !== null ? `${usual}; ${ofConsumer}` : ofConsumer
}

/** Hooks of a concern for options of consumers, on all routes. */
class Kept {
  readonly #most: number
  readonly #all = new Set<readonly [ofRoute: Map<unknown, ByPhase>, options: unknown]>()

  constructor(most: number) {
    this.#most = most
  }

  add(ofRoute: Map<unknown, ByPhase>, options: unknown, hooks: ByPhase): void {
    if (this.#all.size >= this.#most) {
      const [oldest] = this.#all
      this.#all.delete(oldest!)
      oldest![0].delete(oldest![1])
    }
    this.#all.add([ofRoute, options])
    ofRoute.set(options, hooks)
  }
}

/** The hooks of one concern, by the options of consumers. */
export class Overrides {
  readonly #fastify: FastifyInstance
  readonly #config: Config
  readonly #key: OverriddenKey
  readonly #forConsumers: ForConsumers | undefined
  readonly #mayOverride: boolean
  readonly #maySwitchOn: boolean
  readonly #kept: Kept

  constructor(
    fastify: FastifyInstance,
    config: Config,
    key: OverriddenKey,
    forConsumers: ForConsumers | undefined,
    most = MOST
  ) {
    this.#fastify = fastify
    this.#config = config
    this.#key = key
    this.#forConsumers = forConsumers
    this.#mayOverride = forConsumers !== undefined && mayOverride(config, key.name)
    this.#maySwitchOn = forConsumers !== undefined && maySwitchOn(config, key.name, forConsumers)
    this.#kept = new Kept(most)
  }

  /** Returns the options for the hooks of a route on which the concern is off; null to have those of `whenOff`. */
  neutralOn(route: RouteOptions): unknown {
    const neutral = this.#forConsumers?.neutral
    return neutral !== undefined && this.#isSwitchedOn(route) ? neutral : null
  }

  /** Returns whether a consumer may switch the concern on, on a route on which it is off. */
  #isSwitchedOn({ config = {} }: RouteOptions): boolean {
    // An embedding server may register the concern on its own.
    if (!this.#maySwitchOn || !this.#fastify.hasDecorator('edgeOrder')) return false
    if (this.#key.needsBridge !== undefined && lacksBridge(this.#config, config.route)) return false
    return mayKnowConsumers(this.#fastify, this.#config, config)
  }

  /**
   * Attaches the hooks of a route such that those for a consumer's options run in their place. `make` returns the hooks for
   * options of a consumer; for false, those of a route on which the concern is off.
   */
  attach(route: RouteOptions, isOn: boolean, hooks: readonly PhaseHook[], make: Make): void {
    const { phases = [], neutral } = this.#forConsumers ?? {}
    if (!this.#mayOverride || !(isOn || this.#isSwitchedOn(route))) {
      this.#attachPlain(route, hooks)
      return
    }
    const isReplaced = ([phase]: PhaseHook) => phases.includes(phase)
    const kept = hooks.filter((hook) => !isReplaced(hook))
    this.#attachPlain(route, kept)
    const usual = this.#byPhase(kept.length === 0 ? hooks : hooks.filter(isReplaced))
    let made: Map<unknown, ByPhase> | null = null
    const hooksFor = (options: unknown): ByPhase => {
      const known = made?.get(options)
      if (known !== undefined) return known
      const hooks = this.#byPhase(make(options))
      made ??= new Map()
      this.#kept.add(made, options, hooks)
      return hooks
    }
    for (const phase of phases) {
      const hook = usual.get(phase)
      const hookFor = neutral === undefined ? (own: unknown) => hooksFor(own).get(phase) : () => hook
      attachChained(route, phase, { key: this.#key.name, usual: hook, hookFor }, !isOn)
    }
  }

  /** Attaches hooks that do not depend on the consumer. Those that identify it may run before hooks that wait. */
  #attachPlain(route: RouteOptions, hooks: readonly PhaseHook[]): void {
    const isIdentifying = this.#key.authenticates ?? this.#key.provides?.includes('consumer')
    if (!isIdentifying && hooks.length > 0) {
      attachWaiting(
        route,
        hooks.map(([phase]) => phase)
      )
    }
    attachAll(route, hooks)
  }

  /** Throws for a hook that would not run, since a lost hook would let requests pass. */
  #byPhase(hooks: readonly PhaseHook[]): ByPhase {
    if (hooks.length === 0) return none
    const byPhase = new Map<Phase, AnyHook>()
    const { phases } = this.#forConsumers!
    for (const [phase, hook] of hooks) {
      if (!phases.includes(phase) || byPhase.has(phase)) {
        throw new Error(
          `concern ${this.#key.name}: with forConsumers, expected at most one hook for each of ${phases.join(', ')}; found another ${phase}`
        )
      }
      byPhase.set(phase, hook as AnyHook)
    }
    return byPhase
  }
}
