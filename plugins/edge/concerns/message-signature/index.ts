/** Authentication by HTTP Message Signatures (RFC 9421) of declared consumers, with Content-Digest (RFC 9530). */
import type { FastifyRequest } from 'fastify'
import type { InnerList } from 'structured-headers'
import { orOff } from '../../../../config/schema/kit.ts'
import { hasSignedBody } from '../../authentication/body-digest.ts'
import { headerValues, removeHeader } from '../../authentication/credentials.ts'
import { explainCredentials } from '../../authentication/explained.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { CredentialsMissing } from '../../authentication/refused.ts'
import type { Replays } from '../../authentication/replays.ts'
import { replayWindows } from '../../authentication/replays.ts'
import { signatureRefused } from '../../authentication/signature-options.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import type { ConcernContext } from '../../concern.ts'
import { edgeConcern } from '../../concern.ts'
import { bodyAfter } from '../../protocol/first-body.ts'
import { Peers } from '../../protocol/peers.ts'
import { isCovered, SignedMessage, structured } from './base.ts'
import { isSignedBy } from './keys.ts'
import type { MessageSignatureOptions, StoredKey } from './options.ts'
import { checkMessageSignature, credentials, MessageSignature } from './options.ts'

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const signatureReasons = [
  'signature_missing', 'signature_malformed', 'signature_none', 'signature_key', 'signature_parameters', 'signature_age',
  'signature_base', 'signature_components', 'signature_wrong', 'signature_digest', 'signature_replayed'
] as const // biome-ignore format: a list

type Reason = (typeof signatureReasons)[number]

const Refused = signatureRefused<Reason>()

/** Most signatures of one request that are verified, in their order; the first one that is accepted decides. */
const MOST_SIGNATURES = 4

export default edgeConcern({
  name: 'messageSignature',
  options: orOff(MessageSignature),
  apiFacts: () => ({
    security: {
      messageSignature: { type: 'http', scheme: 'signature', description: 'HTTP Message Signatures (RFC 9421).' }
    },
    responses: { 401: 'The signature is missing or wrong.' }
  }),
  provides: ['consumer'],
  authenticates: { counts: 'guesses', onlyDeclared: () => true },
  credentials,
  aliases: { httpSignature: 'write edge.messageSignature', httpMessageSignatures: 'write edge.messageSignature' },
  check: checkMessageSignature,
  explain: ({ tag }, example) =>
    explainCredentials(example, 'signature_missing', fieldsIn, (fields, consumers) => {
      let keys: unknown[]
      try {
        keys = candidatesOf(fields, tag).map(({ input }) => input[1].get('keyid'))
      } catch {
        return 'does not accept: signature_malformed'
      }
      if (keys.length === 0) return 'does not accept: signature_none'
      const known = keys.slice(0, MOST_SIGNATURES).flatMap((keyId) => {
        const owner = typeof keyId === 'string' ? consumers.find('messageSignature', keyId) : undefined
        return owner === undefined ? [] : [owner.consumer.id]
      })
      if (known.length === 0) return 'does not accept: signature_key'
      return `accepts ${known[0]}, if the signature is right: it is not verified here`
    }),
  async plugin(fastify, context) {
    decorateUpstreamHeaders(fastify)
    const claim = replayWindows(context, 'message-signature')
    return (options, route, shadow, refused) => {
      const { maxAge, clockSkew, replayWindow } = options
      const windowMs = maxAge + 2 * clockSkew
      const seen = replayWindow ? claim({ replayWindow, windowMs, isShadow: shadow !== null }) : null
      return {
        onRequest: authenticateBy(signatureMethod(options, context, seen), route, context, shadow, refused),
        ...(options.contentDigest && {
          preParsing: (request, _reply, payload, done) => done(null, bodyAfter(request.raw, payload))
        })
      }
    }
  }
})

/** A signature, with the member of `Signature-Input` that describes it. */
interface Candidate {
  readonly input: InnerList
  readonly signature: Buffer
}

interface Fields {
  readonly inputs: readonly string[]
  readonly signatures: readonly string[]
}

/** Returns the fields with signatures; null if a request has none. */
function fieldsIn(request: FastifyRequest): Fields | null {
  const inputs = headerValues(request, 'signature-input')
  const signatures = headerValues(request, 'signature')
  return inputs.length + signatures.length === 0 ? null : { inputs, signatures }
}

/** Returns the signatures of a request with the wanted tag. Throws if the fields are malformed. */
function candidatesOf({ inputs, signatures }: Fields, tag: string | undefined): Candidate[] {
  const { parseDictionary, isInnerList } = structured()
  const values = parseDictionary(signatures.join(', '))
  const found: Candidate[] = []
  for (const [label, input] of parseDictionary(inputs.join(', '))) {
    const [value] = values.get(label) ?? []
    if (!isInnerList(input) || !(value instanceof ArrayBuffer)) throw new Refused('signature_malformed')
    if (tag === undefined || input[1].get('tag') === tag) found.push({ input, signature: Buffer.from(value) })
  }
  return found
}

function signatureMethod(
  options: MessageSignatureOptions,
  { consumers, clock, config }: ConcernContext,
  seen: Replays | null
): Method<Fields> {
  const { components, contentDigest, maxBodySize, tag, replayWindow, realm, hideCredentials } = options
  // Loads the package when the configuration is built, not with the first request.
  structured()
  const peers = new Peers(config)
  const needed = components.map((name) => name.toLowerCase())
  const { maxAge, clockSkew } = options

  const keyOf = (keyId: string) => {
    const owner = consumers.find('messageSignature', keyId)
    if (owner === undefined) return null
    const stored = [owner.value as StoredKey | readonly StoredKey[]].flat()
    return { consumer: owner.consumer, stored: stored.find((each) => each.keyId === keyId)! }
  }

  /** Throws unless the parameters of a signature are those that are required, and its time has come and not passed. */
  const checkParameters = ([, parameters]: InnerList, { algorithm }: StoredKey): void => {
    const created = parameters.get('created')
    const expires = parameters.get('expires')
    const alg = parameters.get('alg')
    const nonce = parameters.get('nonce')
    const hasTypes =
      Number.isInteger(created) &&
      (expires === undefined || Number.isInteger(expires)) &&
      (alg === undefined || alg === algorithm) &&
      (nonce === undefined || typeof nonce === 'string')
    if (!hasTypes || !options.parameters.every((name) => parameters.has(name)))
      throw new Refused('signature_parameters')
    const now = clock.date()
    const age = now - Number(created) * 1000
    if (age < -clockSkew || age > maxAge + clockSkew) throw new Refused('signature_age')
    if (expires !== undefined && now > Number(expires) * 1000 + clockSkew) throw new Refused('signature_age')
  }

  /** Verifies a signature, but for the body. Returns the covered components, and a function that accepts the consumer. */
  const verified = ({ input, signature }: Candidate, message: SignedMessage) => {
    const keyId = input[1].get('keyid')
    const key = typeof keyId === 'string' ? keyOf(keyId) : null
    if (key === null) throw new Refused('signature_key')
    const { stored } = key
    checkParameters(input, stored)
    const base = message.base(input)
    if (base === null) throw new Refused('signature_base')
    const { covered, text } = base
    if (!needed.every((name) => isCovered(message.request, covered, name))) throw new Refused('signature_components')
    if (!isSignedBy(stored, text, signature)) throw new Refused('signature_wrong')
    const nonce = input[1].get('nonce') as string | undefined
    // The text and not the signature: anybody can make another ECDSA signature of the same text from one.
    const once = replayWindow && (replayWindow.by === 'signature' ? text : nonce)
    if (typeof once === 'string' && seen?.has(stored.keyId, once)) throw new Refused('signature_replayed')
    const accept = (hasBody: boolean): void => {
      if (!hasBody) throw new Refused('signature_digest')
      const current = keyOf(stored.keyId)
      // The declared consumers may have changed meanwhile.
      if (current === null || current.stored.key !== stored.key || current.stored.secret !== stored.secret) {
        throw new Refused('signature_key')
      }
      if (seen !== null && typeof once === 'string' && !seen.add(current.consumer.id, stored.keyId, once)) {
        throw new Refused('signature_replayed')
      }
      message.request.consumer = current.consumer
    }
    return { covered, accept }
  }

  return {
    challenge: `Signature realm="${realm}", components="${needed.join(' ')}"`,
    find: fieldsIn,
    verify(fields, request, reply) {
      let candidates: Candidate[]
      try {
        candidates = candidatesOf(fields, tag)
      } catch {
        throw new Refused('signature_malformed')
      }
      const message = new SignedMessage(request, peers)
      let fault: unknown = new Refused('signature_none')
      for (const candidate of candidates.slice(0, MOST_SIGNATURES)) {
        let found: ReturnType<typeof verified>
        try {
          found = verified(candidate, message)
        } catch (error) {
          fault = error
          continue
        }
        const { covered, accept } = found
        const hasBody =
          !contentDigest || hasSignedBody(request, reply, message.fields, (field) => covered.has(field), maxBodySize)
        return hasBody instanceof Promise ? hasBody.then(accept) : accept(hasBody)
      }
      throw fault
    },
    refusal: (error) =>
      error === null
        ? { error: new CredentialsMissing(), reason: 'signature_missing' }
        : { error: error as Error, reason: error instanceof Refused ? error.reason : null },
    remove(request, isVerified) {
      if (isVerified && !hideCredentials) return
      removeHeader(request, 'signature')
      removeHeader(request, 'signature-input')
    }
  }
}
