import type { Endpoint, Instance } from './types.ts'

/** State of a concern for one service, which all chains of the service share, with its timers and its admin view. */
export interface ServiceState {
  /** Called once: when the service starts, or at once if it has started. */
  start?(): void
  /** Called when the instances have changed; an instance that stays has the same endpoint. */
  update?(instances: readonly Instance[]): void
  /** Returns the state for the admin API. */
  status?(): unknown
  /** Returns the state of one instance for the admin API. */
  instanceStatus?(endpoint: Endpoint): unknown
  /** Closes timers and sockets. */
  close?(): void
}

/**
 * Key by which a concern finds its state in a service, with the type of the state. Only the holder of the key object
 * can find it, so that two concerns with the same name cannot mix up their states.
 */
export class StateKey<S extends ServiceState> {
  /** Name in the admin API. */
  readonly name: string
  readonly #states = new WeakMap<object, Map<string, S>>()

  constructor(name: string) {
    this.name = name
  }

  get(service: object, variant: string): S | undefined {
    return this.#states.get(service)?.get(variant)
  }

  set(service: object, variant: string, state: S): void {
    const states = this.#states.get(service)
    if (states === undefined) this.#states.set(service, new Map([[variant, state]]))
    else states.set(variant, state)
  }
}
