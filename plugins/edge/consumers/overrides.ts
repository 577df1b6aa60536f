/**
 * Overrides of a concern by consumers (`consumers[].edge`): on a route that enables the concern, the hooks for the consumer's
 * options run in place of the route's. They are made when a request first needs them, once for equal options of a route.
 */
import type { FastifyRequest } from 'fastify'
import { FifoMap } from 'toad-cache'
import type { TSchema } from 'typebox'
import type { Consumers } from '../../../config/schema.ts'
import type { Phase } from '../attach.ts'
import type { PhaseHook } from '../route-hooks.ts'
import type { Consumer } from './consumer.ts'

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
}

type Hook = (this: unknown, request: FastifyRequest, ...rest: unknown[]) => unknown
type Done = (error?: unknown) => void

/** Most options of one route whose hooks are kept. */
const MOST = 1000

/** Returns whether a consumer may have its own options of a concern while the configuration is in use. */
export const mayOverride = ({ file, stored, list }: Consumers, key: string): boolean =>
  file !== null ||
  stored !== null ||
  list.some(({ edge }) => edge !== undefined && Reflect.get(edge, key) !== undefined)

/** Returns the options that a consumer has of a concern; false if the concern is off for it, undefined for those of the route. */
const optionsOf = (consumer: Consumer | null, key: string): unknown =>
  consumer === null ? undefined : Reflect.get(consumer.edge, key)

/** Explains what a concern would do with a request of a consumer; `explain` does so for given options. */
export function explainFor<E extends { readonly consumer: Consumer | null }>(
  key: string,
  { isAdded }: ForConsumers,
  example: E,
  explain: (options: unknown) => string | null,
  options: unknown
): string | null {
  const own = optionsOf(example.consumer, key)
  if (own === undefined) return explain(options)
  const text = own === false ? 'off' : explain(own)
  const ofRoute = isAdded ? explain(options) : null
  const ofConsumer = text === null ? null : `${text} (by consumers[].edge of ${example.consumer!.id})`
  return [ofRoute, ofConsumer].filter((each) => each !== null).join('; ') || null
}

/** The hooks of one concern on one route, by the options of consumers. */
export class Overrides {
  readonly #key: string
  readonly #phases: readonly Phase[]
  readonly #make: (options: unknown) => readonly PhaseHook[]
  readonly #made = new FifoMap<ReadonlyMap<Phase, Hook>>(MOST)

  /** `make` returns the hooks for options of a consumer; for false, those of a route on which the concern is off. */
  constructor(key: string, { phases }: ForConsumers, make: (options: unknown) => readonly PhaseHook[]) {
    this.#key = key
    this.#phases = phases
    this.#make = make
  }

  /** Returns the hooks of the route such that those for a consumer's options run in their place. */
  around(hooks: readonly PhaseHook[]): PhaseHook[] {
    const usual = this.#byPhase(hooks.filter(([phase]) => this.#phases.includes(phase)))
    return [
      ...hooks.filter(([phase]) => !this.#phases.includes(phase)),
      ...this.#phases.map((phase): PhaseHook => [phase, this.#hook(phase, usual.get(phase))])
    ]
  }

  #hook(phase: Phase, usual: Hook | undefined): Hook {
    const hooksFor = (options: unknown) => this.#hooksFor(options)
    const key = this.#key
    return function overridable(this: unknown, request, ...rest) {
      const done = rest.at(-1) as Done
      let hook = usual
      try {
        const own = optionsOf(request.consumer, key)
        if (own !== undefined) hook = hooksFor(own).get(phase)
      } catch (error) {
        return done(error)
      }
      return hook === undefined ? done() : Reflect.apply(hook, this, [request, ...rest])
    }
  }

  #hooksFor(options: unknown): ReadonlyMap<Phase, Hook> {
    let hooks = this.#made.get(options)
    if (hooks === undefined) {
      hooks = this.#byPhase(this.#make(options))
      this.#made.set(options, hooks)
    }
    return hooks
  }

  /** Throws for a hook that would not run, since a lost hook would let requests pass. */
  #byPhase(hooks: readonly PhaseHook[]): ReadonlyMap<Phase, Hook> {
    const byPhase = new Map<Phase, Hook>()
    for (const [phase, hook] of hooks) {
      if (!this.#phases.includes(phase) || byPhase.has(phase)) {
        throw new Error(
          `concern ${this.#key}: with forConsumers, expected at most one hook for each of ${this.#phases.join(', ')}; found another ${phase}`
        )
      }
      byPhase.set(phase, hook as Hook)
    }
    return byPhase
  }
}
