/** The contract of a source of instances: the entries of the list in sources.ts. */
import type { Static, TSchema } from 'typebox'
import type { SourceKey } from '../../../config/concern.ts'
import type { ServiceConfig } from '../../../config/schema.ts'
import type { MeshDeps } from '../core/types.ts'
import type { DiscoveryCounters, Restorable } from './loop.ts'

export interface SourceContext {
  readonly deps: MeshDeps
  readonly counters: DiscoveryCounters
}

/** A source with its options, for all services that choose it. */
export interface OpenSource<S> {
  /** Returns the source of one service. `chosen`: its key in the service; undefined for a service without any key of a source. */
  source(service: ServiceConfig, chosen: S | undefined): Restorable
  /**
   * Returns the query for the instances as JSON data without secrets, so that instances of another query are not restored from
   * the snapshot on disk; null if the instances are not stored there.
   */
  query(service: ServiceConfig, chosen: S | undefined): object | null
  /** Closes what the services share; called once their sources are closed. */
  close?(): void | Promise<void>
}

/** A source of instances. The mesh merges instances with the same address, and stores them in the snapshot on disk. */
export interface DiscoverySource<O extends TSchema = TSchema, S extends TSchema = TSchema> extends SourceKey {
  readonly options?: O
  readonly service: S
  /** Opens the source for the first service that chooses it. `options`: those of `discovery.NAME`. */
  create(options: Static<O> | undefined, context: SourceContext): OpenSource<Static<S>>
}

/** Returns the definition, with the types of the schemas in `create`. */
export const defineSource = <O extends TSchema, S extends TSchema>(
  source: DiscoverySource<O, S>
): DiscoverySource<O, S> => source
