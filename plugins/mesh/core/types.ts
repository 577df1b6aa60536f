/**
 * Types that all folders of the mesh share.
 * A *service* is a logical upstream, an *instance* one address of it, a *snapshot* an immutable set of its
 * instances, a *call* one request of a caller to a service, an *attempt* one try of it at one instance.
 */
import type { Dispatcher } from 'undici'
import type { MeshPolicy, RoutePolicy } from '../../../config/schema.ts'
import type { Timers } from '../../clock.ts'
import type { Meter } from '../../meter.ts'
import type { LocalErrorCode } from '../../seam.ts'
import type { SpanRecorder } from '../../spans.ts'

/** One instance as its source describes it. Plain data, equal when its fields are equal. */
export interface InstanceSpec {
  /** Unique in its service and stable over updates; a Consul service id alone is only unique per node. */
  readonly id: string
  /** `http://10.0.0.7:8080`: scheme, host and port. */
  readonly origin: string
  /** Share of the traffic relative to other instances; with 0 it gets none while another instance exists. */
  readonly weight: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
}

/** Freshness of the instances of a source; times from the mesh's clock, in milliseconds. */
export interface SourceStatus {
  /** `consul`, `dns` or `static`. */
  readonly kind: string
  /**
   * Time at which the source last confirmed its instances; null before the first time. A static list is always fresh.
   */
  readonly confirmedAt: number | null
  /** Reason why the source is unavailable or has no instance; null if it works. */
  readonly error: string | null
  /** The source has not responded yet: the instances are those of the discovery snapshot, as old as `confirmedAt`. */
  readonly restored?: true
  /** Reason why a failover datacenter is unavailable, by its name; null if it works. */
  readonly failover?: Readonly<Record<string, string | null>>
}

/** Source of a service's instances. */
export interface Source {
  /**
   * Begins to publish whole sets of instances. `publish` is called when the set has changed, and once for the first
   * result even if that is empty. The source never throws and retries without end; failures show in `status()`.
   */
  start(publish: (instances: readonly InstanceSpec[]) => void): void
  status(): SourceStatus
  /** Ends every timer, socket and pending request of the source. */
  close(): Promise<void>
}

/** Fields of a log line. An error is always an `Error` in `err`; the id of a request is always in `requestId`. */
interface LogFields {
  readonly [name: string]: unknown
  readonly err?: Error
  readonly error?: never
  readonly requestId?: string
  readonly reqId?: never
}

/** Log methods that the mesh uses; pino and Fastify's logger have this shape. */
export interface Logger {
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

/**
 * Owner of a plugin's code. An error that the code throws from a timer or a socket fails one request, not the process.
 */
export interface FaultOwner {
  /** Name of the plugin, for the log. */
  readonly plugin: string
  /** Names of the configured routes that the plugin is for; null or absent: all. */
  readonly routes?: readonly string[] | null
  /** Called for each interceptor that the code adds. */
  noteInterceptor?(): void
  /** Fails the request in whose course the code runs; returns false if there is none. */
  contain(error: Error): boolean
}

/** Tracks which plugin's code runs, also in timers and sockets that the code has created. */
export interface FaultOwners {
  readonly current: FaultOwner | null
  /** Runs code on behalf of an owner; null: of none. */
  run<T>(owner: FaultOwner | null, code: () => T): T
}

/** Injected dependencies: clock, randomness, log, metrics. Tests inject exact ones. */
export interface MeshDeps {
  readonly log: Logger
  readonly meter: Meter | null
  /** Monotonic clock, in milliseconds. */
  readonly now: () => number
  /** Timers of timeouts, pauses and intervals. Default: those of the system. */
  readonly timers?: Timers
  /** Returns the total time for which the event loop has been blocked. `now` stands still meanwhile; timers do not. */
  readonly stalledMs?: () => number
  /** Reports that this process lacks a resource. `cause` is the error code of the operating system, if there is one. */
  readonly noteExhausted?: (code: LocalErrorCode, cause: string | undefined) => void
  /** Returns a random number in [0, 1). */
  readonly random: () => number
  /** Returns the locality of the gateway itself, as far as it is known so far. */
  readonly locality?: () => Locality
  /** Request headers with a new value for each request, such as a request id; in lower case. */
  readonly perRequestHeaders?: readonly string[]
  /** Takes the spans of attempts; without it, none are made. */
  readonly spanRecorder?: SpanRecorder | null
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
  /** True while no concern objects; balancing reads only this. */
  readonly available: boolean
  /** Reasons why the instance is unavailable, by concern. */
  readonly obstacles: Readonly<Record<string, string>>
  /** Time at which the instance last became available, on the mesh's clock; slow start counts from here. */
  readonly since: number
  /** Makes the instance unavailable. A second objection of the same concern replaces the reason. */
  obstruct(concern: string, reason: string): void
  clear(concern: string, reason: string): void
  /** Calls `hear` whenever an active check has passed, for a concern that ejects the instance for other reasons. */
  whenProven(hear: (begunMs: number) => void): void
  /** Reports that an active check, begun at `begunMs` on the mesh's clock, has passed. */
  prove(begunMs: number): void
}

/** An instance as the balancer sees it. */
export interface Instance extends InstanceSpec {
  readonly endpoint: Endpoint
}

/** State that all calls to one address share, over any number of snapshots. */
export interface Endpoint {
  readonly origin: string
  /** Attempts in flight, with those queued for a connection. */
  active: number
  /** Latency of the last responses in milliseconds, peaks weighed more (peak EWMA); null before the first. */
  latencyMs: number | null
  readonly health: Health
  /** Callback for the next attempt at the endpoint; null if there is none. */
  onAttempt: (() => void) | null
  /** Most connections to the endpoint; further attempts are queued. */
  readonly maxConnections: number
  /** Returns whether connections and queue are full, so that another attempt would be refused. */
  isFull(): boolean
  readonly dispatch: Dispatch
}

/** A load balancing policy over the eligible instances. */
export interface Balancer {
  /**
   * Returns the next instance, at none of the `tried` addresses; null if there is no other. `hash` is that of the call,
   * or null if it has none.
   */
  pick(tried: ReadonlySet<Endpoint> | null, hash?: number | null): Instance | null
  /** Returns whether `pick` would find an instance, without affecting the next `pick`. */
  has(tried: ReadonlySet<Endpoint>): boolean
  /** Returns the policy's current view of an instance, such as its score, for the admin API. */
  describe?(instance: Instance): Readonly<Record<string, number | string>>
}

export interface Snapshot {
  /** All instances, whatever their health. */
  readonly instances: readonly Instance[]
  /** Balancers by the name of the subset; that of the whole service under `''`. */
  readonly balancers: Readonly<Record<string, Balancer>>
  /** True while so few instances are available that all are used (`panicThreshold`). */
  readonly panic: boolean
}

/** The state of one attempt at an instance. */
export interface Attempt {
  readonly over: boolean
  whenOver(end: () => void): void
  /** The attempt is queued in the gateway until another one releases its connection; not time of the instance. */
  readonly isQueued: boolean
  /** Milliseconds that the attempt has spent in that queue. */
  readonly waitedMs: number
  enqueue(): void
  /** Ends the queueing: the attempt has a connection, or is over. */
  dequeue(): void
}

export type Dispatch = Dispatcher.Dispatch
export type DispatchOptions = Dispatcher.DispatchOptions
export type DispatchHandler = Dispatcher.DispatchHandler
export type DispatchController = Dispatcher.DispatchController
/** An interceptor in undici's shape: `dispatch => (opts, handler) => boolean`. */
export type Interceptor = Dispatcher.DispatcherComposeInterceptor
export type { MeshPolicy, RoutePolicy }
