/** Authentication by API keys of declared consumers. Only hashes of keys are stored. */
import { hash } from 'node:crypto'
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import type { Clock } from '../../../clock.ts'
import {
  cookieValues,
  headerValues,
  queryValues,
  removeCookie,
  removeHeader,
  removeQuery
} from '../../authentication/credentials.ts'
import { explainCredentials, judgementOf } from '../../authentication/explained.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { refusedAs } from '../../authentication/refused.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import { hashKeyCommand } from './hash-key.ts'
import type { KeyAuthOptions, StoredKey } from './options.ts'
import { checkKeyAuth, credentials, digestOf, KeyAuth } from './options.ts'

const KeyMissing = createError('JW_KEY_MISSING', 'An API key is required', 401)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const keyReasons = ['key_missing', 'key_repeated', 'key_unknown', 'key_expired'] as const

const Refused = refusedAs<(typeof keyReasons)[number]>(createError('JW_KEY_INVALID', 'The API key is not valid', 401))

export default edgeConcern({
  name: 'keyAuth',
  options: orOff(KeyAuth),
  apiFacts: ({ header, query, cookie }) => {
    const [name, place] =
      header !== false ? [header, 'header'] : query !== undefined ? [query, 'query'] : [cookie, 'cookie']
    return {
      security: { apiKey: { type: 'apiKey', in: place, name } },
      responses: { 401: 'The API key is missing or wrong.', 429: 'Too many wrong credentials from this address.' }
    }
  },
  provides: ['consumer'],
  authenticates: { counts: 'guesses', onlyDeclared: () => true },
  credentials,
  aliases: {
    apiKeyAuth: 'write keyAuth: { header: x-api-key }, and the keys under consumers[].keyAuth',
    keyauthCredentials: 'write keyAuth: { hash: "sha256:…" }, which the command hash-key prints'
  },
  innerAliases: {
    'keyNames|keyInHeader|keyInQuery': 'write the name under header, query or cookie',
    runOnPreflight: 'remove it: cors responds to preflights before',
    keys: 'write each under consumers[].keyAuth',
    anonymous: 'write authentication: { anonymous: NAME } beside it'
  },
  commands: [hashKeyCommand],
  check: checkKeyAuth,
  explain: (options, example) =>
    explainCredentials(example, 'key_missing', keysIn(options), (found, consumers, request) =>
      judgementOf(keyMethod(options, { consumers, clock: { date: () => example.date } }), found, request)
    ),
  async plugin(fastify, context) {
    decorateUpstreamHeaders(fastify)
    return (options, route, shadow, refused) => ({
      onRequest: authenticateBy(keyMethod(options, context), route, context, shadow, refused)
    })
  }
})

/** Returns the function that finds the keys of a request. */
const keysIn =
  ({ header, query, cookie }: KeyAuthOptions) =>
  (request: FastifyRequest): readonly string[] | null => {
    const found = [
      ...(header === false ? [] : headerValues(request, header)),
      ...(query === undefined ? [] : queryValues(request, query)),
      ...(cookie === undefined ? [] : cookieValues(request, cookie))
    ]
    return found.length === 0 ? null : found
  }

function keyMethod(
  options: KeyAuthOptions,
  { consumers, clock }: { readonly consumers: ConsumerRegistry; readonly clock: Pick<Clock, 'date'> }
): Method<readonly string[]> {
  const { header, query, cookie, realm, hideCredentials } = options
  const find = keysIn(options)
  return {
    // No scheme is registered for API keys; this is Kong's.
    challenge: `Key realm="${realm}"`,
    find,
    verify(found: readonly string[], request: FastifyRequest) {
      // With several keys, gateway and service could each take another one.
      if (found.length > 1) throw new Refused('key_repeated')
      // A search by digest needs no comparison in constant time: nobody can choose keys by parts of their digests.
      const digest = hash('sha256', found[0]!)
      const owner = consumers.find('keyAuth', digest)
      if (owner === undefined) throw new Refused('key_unknown')
      const { expires } = [owner.value as StoredKey | readonly StoredKey[]]
        .flat()
        .find((key) => digestOf(key) === digest)!
      if (expires !== undefined && clock.date() >= Date.parse(expires)) throw new Refused('key_expired')
      request.consumer = owner.consumer
    },
    refusal: (error) =>
      error === null
        ? { error: new KeyMissing(), reason: 'key_missing' }
        : { error: error as Error, reason: error instanceof Refused ? error.reason : null },
    remove(request, isVerified) {
      if (isVerified && !hideCredentials) return
      if (header !== false) removeHeader(request, header)
      if (query !== undefined) removeQuery(request, query)
      if (cookie !== undefined) removeCookie(request, cookie)
    }
  }
}
