import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { EdgePolicy } from '../../../config/schema.ts'

/** An authenticated caller, frozen. An edge concern or a plugin with `provides: [consumer]` sets it. */
export interface Consumer {
  /**
   * The name of a declared consumer. Else the `sub` of the token or login; `ISSUER|SUB` where the routes accept those of several
   * issuers. On a listener with `connect`, until a concern sets another: the name of the calling service.
   */
  readonly id: string
  /** Groups of a declared consumer, for rules that allow or refuse callers. */
  readonly groups: readonly string[]
  /** Tags of a declared consumer, for services and plugins. */
  readonly tags: readonly string[]
  /** Options of concerns that the consumer has in place of those of the route, whether it enables the concern or not. */
  readonly edge: Readonly<Partial<EdgePolicy>>
}

/** A caller as code may set it: missing lists are empty. */
export type GivenConsumer = Pick<Consumer, 'id'> & Partial<Consumer>

declare module 'fastify' {
  interface FastifyRequest {
    /** The caller, once authenticated. An assigned object is copied and frozen. */
    get consumer(): Consumer | null
    set consumer(consumer: GivenConsumer | null)
  }
}

const none = Object.freeze([])
/** The options of a consumer that has none of its own. */
export const noOptions: Consumer['edge'] = Object.freeze({})

/** Marks consumers that are complete, and so are not copied for each request. Not a WeakSet: the garbage collector visits all of its members. */
const COMPLETE = Symbol('complete')

interface Marked {
  readonly [COMPLETE]?: true
}

/** Returns a frozen consumer, whose missing lists are empty. */
export function consumerOf(given: GivenConsumer): Consumer {
  if ((given as Marked)[COMPLETE] === true) return given as Consumer
  const { groups = none, tags = none, edge = noOptions, ...rest } = given
  const [ownGroups, ownTags] = [groups, tags].map((list) => Object.freeze([...list])) as [string[], string[]]
  const consumer = { ...rest, groups: ownGroups, tags: ownTags, edge }
  // Not enumerable: a copy by `{ ...consumer }` may have other lists.
  Object.defineProperty(consumer, COMPLETE, { value: true })
  return Object.freeze(consumer)
}

const CONSUMER = Symbol('consumer')

/** Adds `request.consumer`. */
export function decorateConsumer(fastify: FastifyInstance): void {
  fastify.decorateRequest(CONSUMER, null)
  fastify.decorateRequest('consumer', {
    getter(this: FastifyRequest) {
      return (this as { [CONSUMER]?: Consumer | null })[CONSUMER] ?? null
    },
    setter(this: FastifyRequest, given: GivenConsumer | null) {
      const request = this as { [CONSUMER]?: Consumer | null }
      request[CONSUMER] = given === null ? null : consumerOf(given)
    }
  } as { getter: (this: FastifyRequest) => Consumer | null })
}
