import type { Fault } from '../../config/faults.ts'
import type { Config } from '../../config/schema.ts'
import type { Facade } from './facade.ts'

/** Result of a reload. */
export interface Outcome {
  readonly applied: boolean
  /** Hash of the configuration that is in use after the reload. */
  readonly hash: string
  /** Reasons why it was not applied. */
  readonly faults: readonly Fault[]
  readonly warnings: readonly Fault[]
  /** Services that still had no instance list when the reload stopped waiting. */
  readonly waitingFor: readonly string[]
  readonly durationMs: number
}

/** Result of the last load of a configuration, at the start or by a reload. */
export interface LastLoad {
  /** Result and cause of the last attempt: `start`, a signal, a request, or a changed file. */
  readonly success: boolean
  readonly cause: string
  readonly at: Date
  /** Reasons why it failed. */
  readonly faults: readonly Fault[]
  readonly succeededAt: Date
}

/** The process, as the gateway of one configuration uses it. */
export interface Host {
  readonly edge: Facade
  /** Null without an admin port. */
  readonly admin: Facade | null
  /** Returns the configuration in use. A gateway that has been replaced has another one. */
  config(): Config
  lastLoad(): LastLoad
  /** Returns whether the process has been ready since its start. */
  wasReady(): boolean
  /** Reads the file again and applies it. `cause` is for the log. Never fails. */
  reload(cause: string): Promise<Outcome>
  /** Contains an error that a plugin throws outside any request. Returns false if the error must end the process. */
  containStray(plugin: string, error: Error): boolean
}

declare module 'fastify' {
  interface FastifyInstance {
    /** The process of the gateway; null if another server embeds the gateway. */
    host: Host | null
    /**
     * True in the commands `check`, `routes` and `explain`, whose gateway never serves. A running gateway may use the same
     * resources, so plugins must then open no port, take no lock and start no job.
     */
    dryRun: boolean
  }
}
