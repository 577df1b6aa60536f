/**
 * Limits for GraphQL services, and persisted queries. Each operation is measured before it reaches the service: tokens,
 * depth, aliases, root fields, estimated cost. The service gets the client's bytes, or with a persisted query the whole
 * query. Refusals, also those of other concerns of the route, have the shape of GraphQL errors.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preParsingHookHandler } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { edgeRouteOf } from '../../attach.ts'
import { readWhole, setLength, takeWhole, wholeBody } from '../../bridge/whole-request.ts'
import { ByteLru } from '../../byte-lru.ts'
import { edgeConcern } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { isWebSocket } from '../../protocol/headers.ts'
import { hasBody } from '../../protocol/request-body.ts'
import { checkGraphql } from './check.ts'
import { Documents } from './document.ts'
import { limits, Total } from './limits.ts'
import { readManifest } from './manifest.ts'
import type { Operation } from './operations.ts'
import { checkPostTarget, checkType, fromBody, fromSearch, searchOf, textOf } from './operations.ts'
import type { GraphqlOptions } from './options.ts'
import { Graphql, GraphqlOfConsumer } from './options.ts'
import type { PersistedSources } from './persisted.ts'
import { bodyWith, resolve, searchWith } from './persisted.ts'
import type { Reason } from './refusals.ts'
import { PersistedQueryMiss, Refusal } from './refusals.ts'
import { asGraphqlError, respondToMiss } from './responses.ts'

type Done = (error?: Error | null, payload?: Readable) => void
/** Refuses a request. In shadow mode the service gets the body that `body` returns. */
type Refuse = (error: unknown, body: () => Readable) => void

export default edgeConcern({
  name: 'graphql',
  options: orOff(Graphql),
  // The requests of other routes are no operations.
  forConsumers: { phases: ['preParsing'], options: GraphqlOfConsumer, needsRoute: true },
  check: checkGraphql,
  complete(options, absolute) {
    const { persistedQueries } = options
    if (persistedQueries?.manifest === undefined) return options
    return {
      ...options,
      persistedQueries: { ...persistedQueries, manifest: absolute(persistedQueries.manifest) }
    }
  },
  explain(options, { method, target, headers }) {
    const upgrade = Object.entries(headers).find(([name]) => name.toLowerCase() === 'upgrade')?.[1]
    if (upgrade !== undefined && isWebSocket(upgrade)) return 'refuses: graphql_upgrade'
    if (method === 'POST') return 'decides by the body, which is not known here'
    if (method === 'OPTIONS') return 'allows'
    if (method !== 'GET' && method !== 'HEAD') return 'refuses: graphql_method'
    const { persistedQueries } = options
    // Queries that clients have registered are not known here, and none is registered.
    const sources = persistedQueries && {
      manifest: persistedQueries.manifest === undefined ? null : readManifest(persistedQueries.manifest),
      only: persistedQueries.only,
      automatic: persistedQueries.automatic ? new ByteLru<string>(persistedQueries.automatic) : null
    }
    try {
      new Guard(options, sources ?? null, () => {}, null).judgeGet(target)
      return 'allows'
    } catch (error) {
      if (error instanceof PersistedQueryMiss || error instanceof Refusal) return `refuses: ${error.reason}`
      throw error
    }
  },
  async plugin(_fastify, { stores, meter }) {
    const refused = meter.counter({
      name: 'jingwei_edge_graphql_refused_total',
      help: 'GraphQL requests that the gateway did not pass on, by reason.',
      labelNames: ['route', 'reason']
    })
    const sourcesOf = (route: string, { persistedQueries }: GraphqlOptions): PersistedSources | null => {
      if (persistedQueries === undefined) return null
      const { manifest, only, automatic } = persistedQueries
      return {
        manifest: manifest === undefined ? null : readManifest(manifest),
        only,
        automatic: automatic
          ? stores.claim('jingwei.graphql', { route, automatic }, () => new ByteLru<string>(automatic))
          : null
      }
    }
    const sources = new Map<string, PersistedSources | null>()
    return (options, { config }, shadow, _refused, level) => {
      const { name } = edgeRouteOf(config)!
      // Consumers have their own limits, but the persisted queries of the route.
      if (level === 'route') sources.set(name, sourcesOf(name, options))
      const count = (reason: string) => refused.labels(name, reason).inc()
      const guard = new Guard(options, sources.get(name)!, count, shadow)
      const preParsing: preParsingHookHandler = (request, reply, payload, done) =>
        guard.check(request, reply, payload as Readable, done)
      if (level === 'consumer') return { preParsing }
      return {
        preParsing,
        // In memory as a whole, so that each attempt of a retry can send it.
        ...(config?.route?.isBridged && { preValidation: takeWhole }),
        preSerialization: asGraphqlError
      }
    }
  }
})

/** Checks the requests of one route. */
class Guard {
  readonly #options: GraphqlOptions
  readonly #sources: PersistedSources | null
  readonly #documents: Documents
  readonly #count: (reason: string) => void
  readonly #shadow: RecordRefusal | null

  constructor(
    options: GraphqlOptions,
    sources: PersistedSources | null,
    count: (reason: string) => void,
    shadow: RecordRefusal | null
  ) {
    this.#options = options
    this.#sources = sources
    this.#documents = new Documents(options)
    this.#count = count
    this.#shadow = shadow
  }

  check(request: FastifyRequest, reply: FastifyReply, payload: Readable, done: Done): void {
    const refuse: Refuse = (error, body) => this.#refuse(error, request, reply, done, body)
    try {
      const { raw, method } = request
      if (isWebSocket(raw.headers.upgrade)) {
        throw new Refusal('graphql_upgrade', 'Operations in a WebSocket cannot be checked: this route takes none')
      }
      if (method === 'POST') this.#checkPost(request, reply, payload, done, refuse)
      else if (hasBody(raw)) throw new Refusal('graphql_method', `A ${method} must have no body`)
      else if (method === 'GET' || method === 'HEAD') {
        this.#checkGet(request)
        done(null, payload)
      } else if (method === 'OPTIONS') done(null, payload)
      else throw new Refusal('graphql_method', 'A GraphQL request is a GET or a POST')
    } catch (error) {
      refuse(error, () => payload)
    }
  }

  /** Throws the refusal of a GET. */
  judgeGet(target: string): void {
    this.#admit([fromSearch(new URLSearchParams(searchOf(target)))], true)
  }

  #checkGet(request: FastifyRequest): void {
    const { raw } = request
    const params = new URLSearchParams(searchOf(raw.url!))
    const { texts, isReplaced } = this.#admit([fromSearch(params)], true)
    if (!isReplaced) return
    const changed = searchWith(params, texts[0]!)
    request.clientTarget ??= raw.url!
    raw.url = `${raw.url!.slice(0, raw.url!.indexOf('?'))}?${changed}`
    request.query = Object.fromEntries(changed)
  }

  #checkPost(request: FastifyRequest, reply: FastifyReply, payload: Readable, done: Done, refuse: Refuse): void {
    const { raw } = request
    const { maxBody, maxBatch } = this.#options
    checkPostTarget(raw.url!)
    checkType(raw.rawHeaders, request.removedHeaders)
    const reading = { maxSize: maxBody, isShadow: this.#shadow !== null }
    const busy = () => new Refusal('graphql_busy', 'Too many bodies are in memory')
    readWhole(request, reply, payload, reading, done, {
      refused(why, rest) {
        const tooLarge = () => new Refusal('graphql_body_size', `The body is larger than ${maxBody} bytes`)
        refuse(why === 'size' ? tooLarge() : busy(), rest)
      },
      whole: (bytes, take) => {
        try {
          const text = textOf(bytes)
          const { texts, isReplaced } = this.#admit(fromBody(text, maxBatch), false)
          const body = isReplaced ? bodyWith(text, texts) : bytes
          // The text of a persisted query may be much longer than its hash.
          if (isReplaced && !take(body.length)) throw busy()
          setLength(raw, body.length, isReplaced)
          done(null, wholeBody(raw, body))
        } catch (cause) {
          refuse(cause, () => {
            setLength(raw, bytes.length, false)
            return wholeBody(raw, bytes)
          })
        }
      }
    })
  }

  /** Checks operations, and returns their queries. Throws a refusal, or a `PersistedQueryMiss`. */
  #admit(operations: readonly Operation[], isGet: boolean): { texts: readonly string[]; isReplaced: boolean } {
    const resolved = operations.map((operation) => resolve(operation, this.#sources))
    const total = new Total()
    operations.forEach(({ variables }, index) => {
      total.add(this.#documents.measure(resolved[index]!.text, variables))
    })
    limits(total, this.#options)
    if (isGet && total.hasMutation) {
      throw new Refusal('graphql_mutation_by_get', 'A mutation must be sent by POST')
    }
    for (const { register, text } of resolved) {
      if (register !== null) this.#sources?.automatic?.set(register, text, 2 * (text.length + register.length))
    }
    return { texts: resolved.map(({ text }) => text), isReplaced: resolved.some((each) => each.isReplaced) }
  }

  #refuse(error: unknown, request: FastifyRequest, reply: FastifyReply, done: Done, body: () => Readable): void {
    if (reply.sent) return
    const isKnown = error instanceof PersistedQueryMiss || error instanceof Refusal
    if (this.#shadow !== null) {
      // Without an error: the hook has read the body, and hands it on.
      if (!isKnown) request.log.error({ err: error }, 'a concern in shadow mode failed: the request goes on')
      this.#shadow(request, isKnown ? error.code : 'JW_INTERNAL', isKnown ? error.reason : undefined)
      done(null, body())
      return
    }
    if (isKnown) {
      request.refusalReason = error.reason
      this.#count(error.reason)
    }
    if (error instanceof PersistedQueryMiss) respondToMiss(error.reason, request, reply)
    else if (error instanceof Refusal) {
      const allowed = allow[error.reason]
      if (allowed !== undefined) reply.header('allow', allowed)
      done(error.error)
    } else done(error as Error)
  }
}

/** Values of `Allow`, by reason. */
const allow: { readonly [R in Reason]?: string } = {
  graphql_method: 'GET, HEAD, POST',
  graphql_mutation_by_get: 'POST'
}
