/** Authentication by user name and password (RFC 7617) of declared consumers. Only hashes of passwords are stored. */
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { headerValues, removeHeader } from '../../authentication/credentials.ts'
import { explainCredentials } from '../../authentication/explained.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { CredentialsMissing, refusedAs } from '../../authentication/refused.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import { clientAddressOf, networkOf } from '../../protocol/client-address.ts'
import { hashPasswordCommand } from './hash-password.ts'
import type { BasicAuthOptions, Login } from './options.ts'
import { BasicAuth, checkBasicAuth, credentials } from './options.ts'
import { Busy } from './password-queue.ts'
import { Passwords } from './passwords.ts'

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const basicReasons = ['basic_missing', 'basic_repeated', 'basic_malformed', 'basic_wrong', 'basic_busy'] as const

const Refused = refusedAs<(typeof basicReasons)[number]>(
  createError('JW_CREDENTIALS_INVALID', 'The user name or the password is wrong', 401)
)

/** Hash of a password that nobody has, for user names that nobody has. */
const nobody = '$scrypt$ln=15,r=8,p=3$bm9ib2R5bm9ib2R5bm9ibw$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8'

export default edgeConcern({
  name: 'basicAuth',
  options: orOff(BasicAuth),
  apiFacts: () => ({
    security: { basic: { type: 'http', scheme: 'basic' } },
    responses: {
      401: 'The user name or password is missing or wrong.',
      429: 'Too many wrong credentials from this address.'
    }
  }),
  aliases: {
    basicauthCredentials: 'write basicAuth: { username: …, hash: … }; the command hash-password prints the hash'
  },
  innerAliases: {
    'users|usersFile|htpasswd': 'write consumers: [{ name: alice, basicAuth: { username: alice, hash: … } }]',
    removeHeader: 'write hideCredentials',
    anonymous: 'write authentication: { anonymous: NAME } beside it'
  },
  provides: ['consumer'],
  authenticates: { counts: 'guesses', scheme: () => 'Basic', onlyDeclared: () => true },
  credentials,
  commands: [hashPasswordCommand],
  check: checkBasicAuth,
  explain: (_options, example) =>
    explainCredentials(example, 'basic_missing', basicIn, (found, consumers) => {
      const parsed = loginOf(found)
      if (typeof parsed === 'string') return `does not accept: ${parsed}`
      const owner = consumers.find('basicAuth', parsed.username)
      if (owner === undefined) return 'does not accept: basic_wrong'
      return `accepts ${owner.consumer.id}, if the password is right: it is not verified here`
    }),
  async plugin(fastify, context) {
    decorateUpstreamHeaders(fastify)
    const { consumers, stores } = context
    return (options, route, shadow, refused) => {
      const passwords = stores.claim(
        'jingwei.passwords',
        null,
        () => new Passwords(),
        (unclaimed) => unclaimed.close()
      )
      return { onRequest: authenticateBy(basicMethod(options, consumers, passwords), route, context, shadow, refused) }
    }
  }
})

/** Returns the values of `Authorization`, if one has credentials of this scheme; else null. */
function basicIn(request: FastifyRequest): readonly string[] | null {
  // Node shows the first field only; the credentials may be in another one.
  const found = request.headers.authorization === undefined ? [] : headerValues(request, 'authorization')
  return found.some((value) => /^basic(?: |$)/i.test(value)) ? found : null
}

/** Returns user name and password, or the reason why there are none. */
function loginOf(found: readonly string[]): ReturnType<typeof parse> | (typeof basicReasons)[number] {
  if (found.length > 1) return 'basic_repeated'
  try {
    return parse(found[0]!)
  } catch {
    return 'basic_malformed'
  }
}

function basicMethod(
  { realm, hideCredentials }: BasicAuthOptions,
  consumers: ConsumerRegistry,
  passwords: Passwords
): Method<readonly string[]> {
  return {
    challenge: `Basic realm="${realm}", charset="UTF-8"`,
    carrier: 'authorization',
    find: basicIn,
    verify(found: readonly string[], request: FastifyRequest) {
      const login = loginOf(found)
      if (typeof login === 'string') throw new Refused(login)
      const { username, password } = login
      const hash = (consumers.find('basicAuth', username)?.value as Login | undefined)?.hash
      // A user name that nobody has takes the time of one that somebody has.
      const verified = passwords.isPasswordOf(
        { username, password, hash: hash ?? decoy(consumers) },
        networkOf(clientAddressOf(request))
      )
      const accept = (isRight: boolean): void => {
        const owner = consumers.find('basicAuth', username)
        // The declared consumers may have changed meanwhile.
        if (!isRight || hash === undefined || (owner?.value as Login | undefined)?.hash !== hash) {
          throw new Refused('basic_wrong')
        }
        request.consumer = owner!.consumer
      }
      if (verified === true) accept(true)
      else return verified.then(accept)
    },
    refusal(error) {
      if (error === null) return { error: new CredentialsMissing(), reason: 'basic_missing' }
      if (error instanceof Busy) return { error, reason: 'basic_busy', isExcess: error.isExcess }
      return { error: error as Error, reason: error instanceof Refused ? error.reason : null }
    },
    remove(request, isVerified) {
      if (!isVerified || hideCredentials) removeHeader(request, 'authorization')
    }
  }
}

/** Returns the hash of some consumer, for its parameters. */
function decoy(consumers: ConsumerRegistry): string {
  for (const { value } of consumers.all('basicAuth')) return (value as Login).hash
  return nobody
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Returns user name and password. Throws unless they are strictly base64 of UTF-8, so that each has one spelling. */
function parse(authorization: string): { username: string; password: string } {
  const [, text = ''] = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(authorization) ?? []
  const bytes = Buffer.from(text, 'base64')
  if (text === '' || bytes.toString('base64') !== text) throw new Refused('basic_malformed')
  let plain: string
  try {
    plain = utf8.decode(bytes).normalize('NFC')
  } catch {
    throw new Refused('basic_malformed')
  }
  const colon = plain.indexOf(':')
  // RFC 7617, 2: no control characters.
  if (colon < 1 || /\p{Cc}/u.test(plain)) throw new Refused('basic_malformed')
  return { username: plain.slice(0, colon), password: plain.slice(colon + 1) }
}
