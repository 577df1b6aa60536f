import type { Fault } from '../../config/faults.ts'
import type { Config } from '../../config/schema.ts'
import type { Facade } from './facade.ts'

/** Result of a reload. */
export interface Outcome {
  readonly applied: boolean
  /** Hash of the configuration in use. */
  readonly hash: string
  /** Why it was not applied. */
  readonly faults: readonly Fault[]
  readonly warnings: readonly Fault[]
  /** Services for whose instances the reload has waited in vain. */
  readonly waitingFor: readonly string[]
  readonly durationMs: number
}

/** Results of the loads of configurations, the one of the start included. */
export interface LastLoad {
  /** Of the last attempt, and by what it was asked for. */
  readonly success: boolean
  readonly cause: string
  readonly at: Date
  /** Why it failed. */
  readonly faults: readonly Fault[]
  readonly succeededAt: Date
}

/** Process of a gateway, as one configuration sees it. */
export interface Host {
  readonly edge: Facade
  /** Null without an admin port. */
  readonly admin: Facade | null
  /** Returns the configuration in use; the gateway that asks may have another one. */
  config(): Config
  lastLoad(): LastLoad
  /** Returns whether the process has been ready since its start. */
  wasReady(): boolean
  /** Reads the file again and applies it. `cause` is for the log. Never fails. */
  reload(cause: string): Promise<Outcome>
  /** Contains what a plugin throws outside any request. False: the fault is the process's. */
  containStray(plugin: string, error: Error): boolean
}

declare module 'fastify' {
  interface FastifyInstance {
    /** The process of the gateway; null where a server of somebody else's embeds it. */
    host: Host | null
    /**
     * True in `check`, `routes` and `explain`, whose gateway never serves. A gateway may be running beside it, so that a
     * plugin opens no port, takes no lock and begins no job.
     */
    dryRun: boolean
  }
}
