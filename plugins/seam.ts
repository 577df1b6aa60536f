/**
 * The seam between the halves: undici's `Dispatcher`, and the keys that this project adds to it. One side sets a key and
 * the other reads it; both take its type from here, since neither may import the other. Types only: nothing here runs.
 *
 * Keys that layers of the mesh set for layers further in are the mesh's own (mesh/core/call-options.ts).
 */
import type { AsyncResource } from 'node:async_hooks'
import type { Dispatcher } from 'undici'
import type { RoutePolicy } from '../config/schema.ts'

/** Virtual origin of a service in a call. */
export type ServiceOrigin = `http://${string}.mesh`

/** The caller of a call, for policies that hash, match or trust by caller. Fastify's request has this shape. */
export interface Caller {
  /** Id of the request, for the log. */
  readonly id?: string
  readonly ip: string
  /** The authenticated caller, or null. */
  readonly consumer: { readonly id: string } | null
  /** True if the caller may ask for faults to be injected. */
  readonly trusted: boolean
  /** `https` if the caller uses TLS, to the gateway or, according to a trusted proxy, to that proxy. */
  readonly protocol?: string
}

/** State of a call for its caller. The fields change until the call is over. */
export interface CallRecord {
  /** Service that serves the call; with a split it may differ from the service of the origin. */
  readonly service: string
  /** Origin of the last instance tried; null before the first attempt. */
  readonly instance: string | null
  /** Attempts started. */
  readonly attempts: number
  /** True if part of the request may have reached an instance. */
  readonly sent: boolean
  /** Name of the substitute, such as a fallback, that responds instead of an instance; for the log. Null without one. */
  readonly substitute: string | null
  /** Kind of the substitute, if it has several. */
  readonly substituteKind: string | null
}

/** Context of `onRequestStart`. A mesh behind the seam passes the call's record, once, before the first attempt. */
export interface CallContext {
  readonly call?: CallRecord
}

/** The configured route for which a call is made. */
export interface CallRoute {
  readonly name: string
  /** `routes[].config`, empty if the route has none. */
  readonly config: Readonly<Record<string, unknown>>
}

/** The client's request for which a call is made: Fastify's, as the edge declares. */
// biome-ignore lint/suspicious/noEmptyInterface: the mesh knows no Fastify
export interface ClientRequest {}

/** Ids of a span (W3C Trace Context). `flags`: bit 0 is set. */
export interface CallerSpan {
  readonly traceId: string
  readonly spanId: string
  readonly flags: number
}

/** Options of `dispatch` that this project adds to undici's. */
export interface CallerOptions {
  /** Configured route; set by the bridge, for interceptors. Absent from calls without a configured route. */
  route?: CallRoute
  /** Client request; set by the bridge, for interceptors. Absent from calls without a client request. */
  request?: ClientRequest
  /** Policy of the route. One frozen object per route: the chain of interceptors is composed once for each. */
  mesh?: RoutePolicy
  caller?: Caller
  /** The caller's span, if its trace is recorded: then each attempt has a span of its own, of which `traceparent` tells the service. */
  trace?: CallerSpan | undefined
  /**
   * Returns the trailer section of the request, as name, value, name, value; called after the last chunk of the body.
   * Only a body without a known length can have trailers.
   */
  trailers?: () => readonly string[]
  /** Async context in which plugins' interceptors run. Default: that of the call to `dispatch`, if there are any. */
  asyncContext?: AsyncResource
}

/**
 * A handler that is done with a chunk of the response once `onResponseData` returns or, if the handler pauses, once it
 * resumes. It gets chunks without a copy: the next bytes are read into the same memory.
 *
 * `borrows` has to be the handler's own `onResponseData`. A flag would be inherited by a subclass that overrides the
 * method and keeps chunks; the comparison makes such a subclass safe.
 */
export interface BorrowingHandler extends Dispatcher.DispatchHandler {
  readonly borrows: Dispatcher.DispatchHandler['onResponseData'] | undefined
}

/**
 * A request body that gives its chunks away: after sending a chunk, the client may free the chunk's memory. (This halves
 * the CPU of a large upload, since the next chunk is read into memory that is still in the caches.) The client reads
 * `transfers` before it frees each chunk. `onBodySent` runs before that, and copies what it keeps.
 */
export interface TransferringBody {
  readonly transfers: boolean
}

/** Codes of the errors that a mesh passes to `onResponseError`. The edge maps them to responses. */
export type SeamErrorCode =
  | 'JW_NO_SERVICE'
  | 'JW_NO_INSTANCE'
  | 'JW_CALL_TIMEOUT'
  | 'JW_RESPONSE_TIMEOUT'
  | 'JW_ATTEMPT_TIMEOUT'
  | 'JW_CALLER_SILENT'
  | 'JW_CIRCUIT_OPEN'
  | 'JW_OVERLOADED'
  | 'JW_UPSTREAM_LIMITED'
  | 'JW_INTENTION_DENIED'
  | 'JW_CREDENTIALS_UNAVAILABLE'
  | 'JW_MESH_CLOSED'
  | 'JW_PLUGIN_FAILED'
  | 'JW_UPSTREAM_REFUSED'
  | 'JW_UPSTREAM_UNREACHABLE'
  | 'JW_UPSTREAM_CONNECT_TIMEOUT'
  | 'JW_UPSTREAM_DNS'
  | 'JW_UPSTREAM_TLS'
  | 'JW_UPSTREAM_UNTRUSTED'
  | 'JW_UPSTREAM_RESET'
  | 'JW_UPSTREAM_MALFORMED'
  | 'JW_UPSTREAM_HEADERS_TOO_LARGE'
  | 'JW_UPSTREAM_TIMEOUT'
  | 'JW_INSTANCE_REMOVED'
  | 'JW_BAD_UPGRADE'
  | LocalErrorCode

/** Codes for a resource that this process or its host lacks. They do not count against the instance. */
export type LocalErrorCode = 'JW_OUT_OF_DESCRIPTORS' | 'JW_OUT_OF_MEMORY' | 'JW_OUT_OF_PORTS' | 'JW_OUT_OF_CPU'

/** Fields of an error from the mesh. All are optional, since another `Dispatcher` may replace the mesh. */
export interface SeamError extends Error {
  /** A `SeamErrorCode`, or a code of Node or undici. */
  readonly code?: unknown
  /** Milliseconds after which a retry may succeed. */
  readonly retryAfterMs?: number | undefined
  /** A `SeamReason`. */
  readonly reason?: unknown
}

/** Reason for which a mesh refuses a call or its response, if the code has several; for the log. */
export type SeamReason =
  | 'instances_unknown'
  | 'instances_none'
  | 'instances_unavailable'
  | 'overload_requests'
  | 'overload_pending'
  | 'overload_instances'
  | 'overload_adaptive'
  | 'circuit_open'
  | 'circuit_half_open'
  | 'continue_unasked'
  | 'credentials_refused'
  | 'credentials_unavailable'
  | 'credentials_malformed'

/** State of the source of a service's instances, for the admin API. Its time is in ISO 8601. */
export interface SourceView {
  readonly kind: string
  /** Time at which the source last confirmed its instances; null before the first time. */
  readonly confirmedAt: string | null
  /** Reason why the source is unavailable or has no instance; null if it works. */
  readonly error: string | null
  /** The source has not responded yet: the instances are those of the discovery snapshot, as old as `confirmedAt`. */
  readonly restored?: true
  /** Reason why a failover datacenter is unavailable, by its name; null if it works. */
  readonly failover?: Readonly<Record<string, string | null>>
}

/** State of a service's discovery. */
export interface DiscoveryStatus {
  readonly name: string
  readonly source: SourceView
  /** Milliseconds since the source last confirmed its instances; null if it never did. */
  readonly ageMs: number | null
  /** Number of instances, whatever their health. */
  readonly instances: number
}

/** State of a service, for the admin API. `concerns`: state in the concerns and the balancer, by their names. */
export interface ServiceStatus extends Pick<DiscoveryStatus, 'name' | 'source'> {
  readonly instances: readonly {
    readonly id: string
    readonly origin: string
    readonly weight: number
    readonly active: number
    readonly available: boolean
    /** Reasons why the instance is unavailable, by concern. */
    readonly obstacles: Readonly<Record<string, string>>
    readonly concerns: Readonly<Record<string, unknown>>
  }[]
  /** True while so few instances are available that all are used (`panicThreshold`). */
  readonly panic: boolean
  /** Calls in flight. */
  readonly active: number
  readonly concerns: Readonly<Record<string, unknown>>
}

/** Chain and instances that a call to one service would use. */
export interface Explanation {
  readonly service: string
  readonly subset: string | null
  /** Share of a split: its weight, and whether the call fits its `match`. Null without a split. */
  readonly share: { readonly weight: number; readonly matched: boolean } | null
  readonly chain: readonly string[]
  /** Texts of layers that describe what they do, by their names. */
  readonly decisions: readonly (readonly [name: string, text: string])[]
  /** Path before that of the call; null if the service has none. */
  readonly basePath: string | null
  /** Id of the instance that the call's hash selects; null if nothing is hashed. */
  readonly hashed: string | null
  readonly status: ServiceStatus
}

/** The calls to services: `fastify.mesh`, by the mesh or without it. Operations use the methods below. */
export interface ServiceCalls extends Dispatcher {
  start(options?: { readonly attend?: boolean }): this
  ready(options?: { readonly timeout?: string | number | false; readonly signal?: AbortSignal }): Promise<void>
  /** Throws `JW_NO_SERVICE`. The same object as before a reload, if the service is unchanged. */
  service(name: string): {
    readonly active: number
    readonly ready: Promise<void>
    readonly source: { readonly confirmedAt: number | string | null }
    /** All discovered instances, whatever their health. */
    readonly instances: { readonly length: number }
    status(): ServiceStatus
  }
  /** Returns the names of the layers that a call passes, outermost first. */
  describe(service: string, policy?: RoutePolicy, route?: string, share?: number): string[]
  explain(service: string, policy: RoutePolicy, opts: Dispatcher.DispatchOptions): Explanation[]
  status(): ServiceStatus[]
  discovery(): DiscoveryStatus[]
  shutdown(graceMs?: number): Promise<void>
}

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions extends CallerOptions {}

    interface DispatchHandler {
      /** See `BorrowingHandler`. */
      borrows?: Dispatcher.DispatchHandler['onResponseData'] | undefined
    }

    interface DispatchController {
      /** True if the instance waits for more of the request body than the caller has sent: the caller is slow. */
      readonly awaitsBody?: boolean
    }
  }
}
