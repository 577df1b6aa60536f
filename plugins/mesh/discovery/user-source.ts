/** Sources of instances of users. Their code is not trusted: it may throw, hang, and publish values of any shape. */
import type { Static, TSchema } from 'typebox'
import type { SourceKey } from '../../../config/concern.ts'
import type { ServiceConfig } from '../../../config/schema.ts'
import { asError } from '../../thrown.ts'
import type { InstanceSpec, Logger } from '../core/types.ts'
import type { DiscoverySource, OpenSource, SourceContext } from './contract.ts'
import type { Described } from './described.ts'
import { Published } from './published.ts'
import type { Watching } from './watched.ts'
import { WatchedSource } from './watched.ts'

/** An instance as a source publishes it: its URL (scheme, host and port), or an object with more. */
export type PublishedInstance = string | Described

/** Context of one run of `watch`. Its methods have no effect once the run has ended. */
export interface UserWatching {
  /** Aborted when the service ends, and when the run has timed out. */
  readonly signal: AbortSignal
  /**
   * Publishes the whole set of instances. Publish an unchanged set as well: it confirms that the instances are up to date, and
   * changes nothing else.
   */
  publish(instances: readonly PublishedInstance[]): void
  /** Reports a failure from which the run recovers by itself. The last known instances stay in use. */
  fail(error: unknown): void
}

/** A source for one service. */
interface UserWatch {
  /**
   * Looks up the instances and publishes them: once, or for as long as it runs. It runs again after `every` once it has resolved,
   * and after a backoff if it rejects.
   */
  watch(watching: UserWatching): Promise<void> | void
}

/** A source with its options, for all services that choose it. */
interface UserOpenSource<S> {
  source(service: { readonly name: string; readonly options: S }): UserWatch
  /** Closes what the services share. */
  close?(): void | Promise<void>
}

/** Definition of a source of instances in a user's module; `discoverySource` adds the types of the schemas. */
export interface UserDiscoverySource<O extends TSchema = TSchema, S extends TSchema = TSchema> extends SourceKey {
  readonly options?: O
  readonly service: S
  /** Milliseconds until `watch` runs again after it has resolved. Default: 10 s. */
  readonly every?: number
  /** Milliseconds that `watch` has until it publishes, fails or ends. Default: 30 s. */
  readonly timeout?: number
  /** Milliseconds for which an empty set must last while instances are in use. Default: 5 s. */
  readonly emptyGrace?: number
  create(options: Static<O> | undefined, context: { readonly log: Logger }): UserOpenSource<Static<S>>
}

/** Guards the code of a user; without one, errors that it throws later are those of the process. */
interface SourceGuard {
  /** Runs its code. `contain` gets errors that the code throws later, in timers and sockets of its own. */
  enter<T>(contain: (error: Error) => void, code: () => T): T
  /** Runs code of the mesh that the code calls. */
  leave<T>(code: () => T): T
  /** Creates an error of the start. */
  fault(message: string, cause?: unknown): Error
}

const noGuard: SourceGuard = {
  enter: (_contain, code) => code(),
  leave: (code) => code(),
  fault: (message, cause) => new Error(message, { cause })
}

/** Longest time for `close` of a source. */
const closeMs = 5000

/** Returns the source of a definition. */
export function userSource(definition: UserDiscoverySource, guard: SourceGuard = noGuard): DiscoverySource {
  return { ...definition, create: (options, context) => openSource(definition, guard, options, context) }
}

function openSource(
  definition: UserDiscoverySource,
  guard: SourceGuard,
  options: unknown,
  context: SourceContext
): OpenSource<unknown> {
  const { name, every = 10_000, timeout = 30_000, emptyGrace = 5000 } = definition
  const { log } = context.deps
  /** Runs code at the start, whose errors end the start. */
  const atStart = <T>(what: string, code: () => T): T => {
    const failed = (error: unknown) =>
      guard.fault(`source of instances ${name}: ${what} failed: ${asError(error).message}`, error)
    const contain = (err: Error) => log.error({ err, source: name }, `source of instances ${name}: ${err.message}`)
    try {
      return guard.enter(contain, code)
    } catch (error) {
      throw failed(error)
    }
  }
  const opened = atStart('create', () => definition.create(options, { log }))
  if (typeof opened?.source !== 'function') {
    throw guard.fault(`source of instances ${name}: create returned no object with a function "source"`)
  }
  return {
    source(service: ServiceConfig, chosen: unknown) {
      const own = atStart(`source of service ${service.name}`, () =>
        opened.source({ name: service.name, options: chosen })
      )
      if (typeof own?.watch !== 'function') {
        throw guard.fault(`source of instances ${name}: source returned no object with a function "watch"`)
      }
      const published = new Published(name, service.name, log)
      return new WatchedSource(
        {
          kind: name,
          service: service.name,
          watch: (watching) => watchGuarded(own, watching, published, guard),
          everyMs: every,
          timeoutMs: timeout,
          emptyGraceMs: emptyGrace,
          label: `source of instances ${name}`
        },
        context
      )
    },
    query: ({ name: service }, chosen) => ({ source: name, service, chosen: chosen ?? null }),
    async close() {
      const closed = Promise.resolve().then(() => opened.close?.())
      const failed = (error: unknown) =>
        log.warn(
          { err: asError(error), source: name },
          `source of instances ${name}: close failed; it may leave resources open`
        )
      const { promise, reject } = Promise.withResolvers<never>()
      const timer = setTimeout(() => reject(new Error(`not closed within ${closeMs / 1000} s`)), closeMs)
      await Promise.race([closed, promise]).catch(failed)
      clearTimeout(timer)
    }
  }
}

function watchGuarded(own: UserWatch, watching: Watching, published: Published, guard: SourceGuard): Promise<void> {
  const { signal } = watching
  const publish = (instances: unknown) =>
    guard.leave(() => {
      let specs: readonly InstanceSpec[]
      try {
        specs = published.specsOf(instances)
      } catch (error) {
        watching.fail(error)
        return
      }
      watching.publish(specs)
    })
  const fail = (error: unknown) => guard.leave(() => watching.fail(asError(error)))
  return guard.enter(fail, async () => own.watch({ signal, publish, fail }))
}
