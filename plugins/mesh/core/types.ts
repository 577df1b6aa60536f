/**
 * The words that the rooms of the mesh share.
 * A *service* is a logical upstream, an *instance* one address of it, a *snapshot* an immutable set of its
 * instances, a *call* what the caller asked for, an *attempt* one try at one instance.
 */
import type { Dispatcher } from 'undici'
import type { MeshPolicy, RoutePolicy } from '../../../config/schema.ts'
import type { Meter } from '../../meter.ts'
import type { LocalErrorCode } from '../../seam.ts'

/** One instance as its source describes it. Plain data, equal when its fields are equal. */
export interface InstanceSpec {
  /** Unique in its service and stable over updates; a Consul service id alone is only unique per node. */
  readonly id: string
  /** `http://10.0.0.7:8080`: scheme, host and port. */
  readonly origin: string
  /** Share of the traffic relative to the others; 0 takes none while another instance is there. */
  readonly weight: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
}

/** Freshness of the instances of a source; times from the mesh's clock, in milliseconds. */
export interface SourceStatus {
  /** `consul`, `dns` or `static`. */
  readonly kind: string
  /** When the source last confirmed its answer, or null while it never did. A static list is always fresh. */
  readonly confirmedAt: number | null
  /** Why the source cannot be asked just now, or why it has no instance to name; null while all is well. */
  readonly error: string | null
  /** The source has not answered yet; what was kept on disk serves, and `confirmedAt` tells its age. */
  readonly restored?: true
  /** Why a failover datacenter cannot be asked, by its name; null while all is well. */
  readonly failover?: Readonly<Record<string, string | null>>
}

/** Source of a service's instances. */
export interface Source {
  /**
   * Begins to publish whole sets of instances. `publish` is called when the set has changed, and once for the
   * first answer even if that is empty. It never throws and never gives up: failures show in `status()`.
   */
  start(publish: (instances: readonly InstanceSpec[]) => void): void
  status(): SourceStatus
  /** Ends every timer, socket and pending request of the source. */
  close(): Promise<void>
}

/** Fields of a log line. An error is always under `err` and an error object, a request always under `requestId`. */
export interface LogFields {
  readonly [name: string]: unknown
  readonly err?: Error
  readonly error?: never
  readonly requestId?: string
  readonly reqId?: never
}

/** The few log calls that the mesh makes; pino and Fastify's logger have this shape. */
export interface Logger {
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

/** Owner of code of a plugin: what that throws from a timer or a socket ends one request, not the process. */
export interface FaultOwner {
  /** Its name, for the log. */
  readonly plugin: string
  /** Names of the configured routes that the plugin is for; null or absent: all. */
  readonly routes?: readonly string[] | null
  /** Called for each interceptor that the code adds. */
  noteInterceptor?(): void
  /** Ends what is left of the request; false if there is none. */
  contain(error: Error): boolean
}

/** Knows whose code runs, also in the timers and sockets that the code has made. */
export interface FaultOwners {
  readonly current: FaultOwner | null
  /** Runs code as the owner's; null: as nobody's. */
  run<T>(owner: FaultOwner | null, code: () => T): T
}

/** Injected dependencies: clock, randomness, log, metrics. Tests inject exact ones. */
export interface MeshDeps {
  readonly log: Logger
  readonly meter: Meter | null
  /** Milliseconds, never running backwards. */
  readonly now: () => number
  /** Returns for how long the event loop has been blocked so far. `now` stands still meanwhile; timers do not. */
  readonly stalledMs?: () => number
  /** This process lacks a resource. `cause` is the code of the operating system, if it has one. */
  readonly noteExhausted?: (code: LocalErrorCode, cause: string | undefined) => void
  /** In [0, 1). */
  readonly random: () => number
  /** Returns the locality of the gateway itself, as far as that is known by now. */
  readonly locality?: () => Locality
  /** Request headers whose value is new for each request, such as a request id, in lower case. */
  readonly perRequestHeaders?: readonly string[]
}

/** Locality of the gateway itself. */
export interface Locality {
  readonly datacenter: string | null
  readonly zone: string | null
}

/**
 * Decides whether an instance may be chosen: it may unless a concern objects. Each concern (active checks, outlier
 * detection) objects under its own name, and the instance is available again when all have withdrawn.
 */
export interface Health {
  /** Nothing else decides whether an instance takes part. */
  readonly available: boolean
  /** Reasons why it is unavailable, by concern. */
  readonly obstacles: Readonly<Record<string, string>>
  /** Time at which it last became available, on the mesh's clock; slow start counts from here. */
  readonly since: number
  /** Makes it unavailable. A second objection of the same concern replaces the reason. */
  obstruct(concern: string, reason: string): void
  clear(concern: string, reason: string): void
  /** Calls `hear` whenever a check has found the instance healthy, for a concern that judges by other means. */
  whenProven(hear: (begunMs: number) => void): void
  /** Reports that a check, begun at `begunMs` on the mesh's clock, has found the instance healthy. */
  prove(begunMs: number): void
}

/** An instance as the balancer sees it. */
export interface Instance extends InstanceSpec {
  readonly endpoint: Endpoint
}

/** State that all calls to one address share, over any number of snapshots. */
export interface Endpoint {
  readonly origin: string
  /** Attempts in flight, those included that wait for a connection. */
  active: number
  /** Latency of the last answers, peaks weighed more; null until one is measured. Milliseconds. */
  latencyMs: number | null
  readonly health: Health
  /** Called when an attempt is sent to the endpoint; null while nobody waits for one. */
  onAttempt: (() => void) | null
  /** Connections that there may be; attempts beyond these wait for one. */
  readonly maxConnections: number
  /** Returns whether another attempt would find neither a connection nor a place in the queue for one. */
  isFull(): boolean
  readonly dispatch: Dispatch
}

/** A load balancing policy over the instances that may be chosen. */
export interface Balancer {
  /**
   * The next instance, at none of the addresses `tried`; null when there is no other. `hash` is that of the call,
   * or null where it has none.
   */
  pick(tried: ReadonlySet<Endpoint> | null, hash?: number | null): Instance | null
  /** Returns whether `pick` would find an instance. Nothing is chosen: the next `pick` is not affected. */
  has(tried: ReadonlySet<Endpoint>): boolean
  /** For people: what the policy thinks of an instance just now, such as its score. */
  describe?(instance: Instance): Readonly<Record<string, number | string>>
}

export interface Snapshot {
  /** All of them, whatever their health. */
  readonly instances: readonly Instance[]
  /** By name of the subset; the whole service under `''`. */
  readonly balancers: Readonly<Record<string, Balancer>>
  /** So few are available that all of them are used. */
  readonly panic: boolean
}

/** The state of one attempt at an instance. */
export interface Attempt {
  readonly over: boolean
  whenOver(end: () => void): void
  /** The attempt waits for another one to release its connection: a queue of ours, not the instance's time. */
  readonly isQueued: boolean
  /** Milliseconds that it has waited in that queue. */
  readonly waitedMs: number
  enqueue(): void
  /** Ends the wait: the attempt has a connection, or is over. */
  dequeue(): void
}

export type Dispatch = Dispatcher.Dispatch
export type DispatchOptions = Dispatcher.DispatchOptions
export type DispatchHandler = Dispatcher.DispatchHandler
export type DispatchController = Dispatcher.DispatchController
/** undici's shape: `dispatch => (opts, handler) => boolean`. */
export type Interceptor = Dispatcher.DispatcherComposeInterceptor
export type { MeshPolicy, RoutePolicy }
