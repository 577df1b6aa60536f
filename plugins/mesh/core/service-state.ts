import type { Endpoint, Instance } from './types.ts'

/** State that a concern has for a service, over all chains of the service; with its timers and its part of the admin view. */
export interface ServiceState {
  /** Called once, when the service starts or, if it has, at once. */
  start?(): void
  /** Called when the instances have changed; those that stay have the same endpoint. */
  update?(instances: readonly Instance[]): void
  /** For the admin view. */
  status?(): unknown
  /** For the admin view, of one instance. */
  instanceStatus?(endpoint: Endpoint): unknown
  /** Ends timers and sockets. */
  close?(): void
}

/**
 * Key by which a concern finds its state of a service, with the type of the state. A key has no other states than those
 * that were created under it: no other concern, of whatever name, can meet them.
 */
export class StateKey<S extends ServiceState> {
  /** Name in the admin view. */
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
