/** The refusals of `edge.graphql`: their reasons, codes and statuses. */
import createError from '@fastify/error'
import type { FastifyError } from 'fastify'

const Malformed = createError('JW_GRAPHQL_REQUEST', '%s', 400)
const Syntax = createError('JW_GRAPHQL_SYNTAX', '%s', 400)
const OverLimit = createError('JW_GRAPHQL_LIMIT', '%s', 400)
const Introspection = createError('JW_GRAPHQL_INTROSPECTION', '%s', 400)
const NotPersisted = createError('JW_GRAPHQL_NOT_PERSISTED', '%s', 403)
const Method = createError('JW_GRAPHQL_METHOD', '%s', 405)
const MediaType = createError('JW_GRAPHQL_TYPE', '%s', 415)
const TooLarge = createError('JW_BODY_TOO_LARGE', '%s', 413)
const Busy = createError('JW_BODY_BUSY', '%s', 503)
const Upgrade = createError('JW_UPGRADE_REFUSED', '%s', 403)

/** Errors by reason. */
export const refusals = {
  graphql_body: Malformed,
  graphql_duplicate_key: Malformed,
  graphql_parameters: Malformed,
  graphql_hash: Malformed,
  graphql_syntax: Syntax,
  graphql_fragments: Syntax,
  graphql_batch: OverLimit,
  graphql_tokens: OverLimit,
  graphql_nesting: OverLimit,
  graphql_depth: OverLimit,
  graphql_aliases: OverLimit,
  graphql_root_fields: OverLimit,
  graphql_cost: OverLimit,
  graphql_introspection: Introspection,
  graphql_not_persisted: NotPersisted,
  graphql_method: Method,
  graphql_mutation_by_get: Method,
  graphql_media_type: MediaType,
  graphql_body_size: TooLarge,
  graphql_busy: Busy,
  graphql_upgrade: Upgrade
} as const

export type Reason = keyof typeof refusals

/** A refused request. */
export class Refusal extends Error {
  readonly reason: Reason

  constructor(reason: Reason, message: string) {
    super(message)
    this.reason = reason
  }

  /** Returns the error to respond with. */
  get error(): FastifyError {
    return new refusals[this.reason](this.message)
  }

  get code(): string {
    return this.error.code
  }
}

/** The errors of the protocol for persisted queries, to which clients respond by sending the whole query. */
export const persistedQueryErrors = {
  graphql_persisted_missing: { message: 'PersistedQueryNotFound', code: 'PERSISTED_QUERY_NOT_FOUND' },
  graphql_persisted_off: { message: 'PersistedQueryNotSupported', code: 'PERSISTED_QUERY_NOT_SUPPORTED' }
} as const

/** A request that names a persisted query which the gateway does not have. */
export class PersistedQueryMiss extends Error {
  readonly reason: keyof typeof persistedQueryErrors

  constructor(reason: keyof typeof persistedQueryErrors) {
    super(persistedQueryErrors[reason].message)
    this.reason = reason
  }

  get code(): string {
    return persistedQueryErrors[this.reason].code
  }
}

/** The closed list of words that the access log and the metric have, documented in plugins/edge/access-log/README.md. */
export const graphqlReasons = [...Object.keys(refusals), ...Object.keys(persistedQueryErrors)]
