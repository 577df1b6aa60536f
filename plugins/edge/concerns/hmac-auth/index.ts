/** Authentication by signatures with a shared secret, in the wire format of Kong's hmac-auth. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import type { Clock } from '../../../clock.ts'
import { hasSignedBody } from '../../authentication/body-digest.ts'
import { headerValues, removeHeader } from '../../authentication/credentials.ts'
import { explainCredentials, judgementOf } from '../../authentication/explained.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { CredentialsMissing } from '../../authentication/refused.ts'
import type { Replays } from '../../authentication/replays.ts'
import { replayWindows } from '../../authentication/replays.ts'
import { signatureRefused } from '../../authentication/signature-options.ts'
import { SignedFields } from '../../authentication/signed-fields.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { ConsumerRegistry, Found } from '../../consumers/registry.ts'
import { bodyAfter } from '../../protocol/first-body.ts'
import type { HmacAuthOptions, StoredSecret } from './options.ts'
import { checkHmacAuth, credentials, HmacAuth } from './options.ts'
import type { HmacSignature } from './signature.ts'
import { isHmac, readHmac, signedDate, signedText } from './signature.ts'

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const hmacReasons = [
  'hmac_missing', 'hmac_repeated', 'hmac_malformed', 'hmac_algorithm', 'hmac_headers', 'hmac_field', 'hmac_date',
  'hmac_skew', 'hmac_wrong', 'hmac_digest', 'hmac_replayed'
] as const // biome-ignore format: a list

const Refused = signatureRefused<(typeof hmacReasons)[number]>()

/** Secret of user names that nobody has, so that their signatures take the same time. */
const nobody = randomBytes(32).toString('hex')

export default edgeConcern({
  name: 'hmacAuth',
  options: orOff(HmacAuth),
  apiFacts: () => ({
    security: { hmac: { type: 'http', scheme: 'hmac', description: 'A signature with a shared secret.' } },
    responses: { 401: 'The signature is missing or wrong.' }
  }),
  provides: ['consumer'],
  authenticates: { counts: 'guesses', onlyDeclared: () => true },
  credentials,
  innerAliases: {
    allowedAlgorithms: 'write algorithms',
    signedHeaders: 'write enforceHeaders',
    validateBody: 'write validateRequestBody'
  },
  check: checkHmacAuth,
  explain: (options, example) =>
    explainCredentials(example, 'hmac_missing', signaturesIn, (found, consumers, request) => {
      // The body of an example is not known, and no earlier request is compared with it.
      const known = { ...options, validateRequestBody: false }
      const text = judgementOf(
        hmacMethod(known, { consumers, clock: { date: () => example.date } }, null),
        found,
        request
      )
      const { replayWindow, validateRequestBody } = options
      return text.startsWith('accepts') && (replayWindow !== false || validateRequestBody)
        ? `${text}, but for its body and its repetition, which are not checked here`
        : text
    }),
  async plugin(fastify, context) {
    decorateUpstreamHeaders(fastify)
    const claim = replayWindows(context, 'hmac-auth')
    return (options, route, shadow, refused) => {
      const { clockSkew, replayWindow } = options
      const seen = replayWindow ? claim({ replayWindow, windowMs: 2 * clockSkew, isShadow: shadow !== null }) : null
      return {
        onRequest: authenticateBy(hmacMethod(options, context, seen), route, context, shadow, refused),
        ...(options.validateRequestBody && {
          preParsing: (request, _reply, payload, done) => done(null, bodyAfter(request.raw, payload))
        })
      }
    }
  }
})

const isInAuthorization = (request: FastifyRequest) => headerValues(request, 'authorization').some(isHmac)

/** Returns the signatures of a request; null if it has none. */
function signaturesIn(request: FastifyRequest): readonly string[] | null {
  const forGateway = headerValues(request, 'proxy-authorization').filter(isHmac)
  const others = headerValues(request, 'authorization')
  const found = others.some(isHmac) ? [...forGateway, ...others] : forGateway
  return found.length === 0 ? null : found
}

function hmacMethod(
  options: HmacAuthOptions,
  { consumers, clock }: { readonly consumers: ConsumerRegistry; readonly clock: Pick<Clock, 'date'> },
  seen: Replays | null
): Method<readonly string[]> {
  const { algorithms, clockSkew, validateRequestBody, maxBodySize, realm, hideCredentials } = options
  const enforced = options.enforceHeaders.map((name) => name.toLowerCase())

  const ownerOf = ({ username }: HmacSignature): (Found & { readonly secret: string }) | null => {
    const owner = consumers.find('hmacAuth', username)
    if (owner === undefined) return null
    const stored = [owner.value as StoredSecret | readonly StoredSecret[]].flat()
    return { ...owner, secret: stored.find((each) => each.username === username)!.secret }
  }

  return {
    challenge: `hmac realm="${realm}", headers="${[...new Set(['date', ...enforced])].join(' ')}"`,
    carrier: 'authorization',
    // A signature in `Proxy-Authorization` says nothing about what is in `Authorization`.
    isInCarrier: isInAuthorization,
    find: signaturesIn,
    verify(found: readonly string[], request: FastifyRequest, reply: FastifyReply | null) {
      if (found.length > 1) throw new Refused('hmac_repeated')
      const signature = readHmac(found[0]!)
      if (signature === null) throw new Refused('hmac_malformed')
      const { algorithm, names, mac, username } = signature
      if (!(algorithms as readonly string[]).includes(algorithm)) throw new Refused('hmac_algorithm')
      const signed = new Set(names.map((name) => name.toLowerCase()))
      const isSigned = (name: string) =>
        signed.has(name) ||
        (name === 'request-line' && signed.has('@request-target')) ||
        (name === 'date' && signed.has('x-date'))
      if (!isSigned('date') || !enforced.every(isSigned)) throw new Refused('hmac_headers')
      const fields = new SignedFields(request)
      const text = signedText(request, fields, names)
      if (text === null) throw new Refused('hmac_field')
      const date = signedDate(fields, signed)
      if (Number.isNaN(date)) throw new Refused('hmac_date')
      if (Math.abs(clock.date() - date) > clockSkew) throw new Refused('hmac_skew')
      const secret = ownerOf(signature)?.secret
      // Node has header values as Latin-1: each character is a byte that was sent.
      const expected = createHmac(algorithm.slice('hmac-'.length), secret ?? nobody)
        .update(text, 'latin1')
        .digest()
      const isRight = mac.length === expected.length && timingSafeEqual(mac, expected)
      if (!isRight || secret === undefined) throw new Refused('hmac_wrong')
      if (seen?.has(username, mac)) throw new Refused('hmac_replayed')
      const accept = (hasBody: boolean): void => {
        if (!hasBody) throw new Refused('hmac_digest')
        const owner = ownerOf(signature)
        // The declared consumers may have changed meanwhile.
        if (owner?.secret !== secret) throw new Refused('hmac_wrong')
        if (seen !== null && !seen.add(owner.consumer.id, username, mac)) throw new Refused('hmac_replayed')
        request.consumer = owner.consumer
      }
      const hasBody = !validateRequestBody || hasSignedBody(request, reply, fields, isSigned, maxBodySize)
      if (hasBody instanceof Promise) return hasBody.then(accept)
      accept(hasBody)
    },
    refusal: (error) =>
      error === null
        ? { error: new CredentialsMissing(), reason: 'hmac_missing' }
        : { error: error as Error, reason: error instanceof Refused ? error.reason : null },
    remove(request, isVerified) {
      if (!isVerified || (hideCredentials && isInAuthorization(request))) removeHeader(request, 'authorization')
    }
  }
}
