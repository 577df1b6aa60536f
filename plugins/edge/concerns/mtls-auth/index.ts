/** Authentication by client certificates, which were verified in the handshake or by a trusted proxy. */
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { withoutCredentials } from '../../authentication/explained.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { refusedAs } from '../../authentication/refused.ts'
import type { ConcernContext } from '../../concern.ts'
import { edgeConcern } from '../../concern.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import { consumerOf } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import type { ClientCertificate } from '../../protocol/tls/client-certificate.ts'
import { x509Of } from '../../protocol/tls/client-certificate.ts'
import { allowTest } from './conditions.ts'
import type { CertificateNames } from './names.ts'
import { kinds, namesOf } from './names.ts'
import type { MtlsAuthOptions } from './options.ts'
import { checkMtlsAuth, checkRoutes, credentials, idOf, MtlsAuth } from './options.ts'

const Missing = createError('JW_CERTIFICATE_MISSING', 'A client certificate is required', 401)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const mtlsReasons = ['mtls_missing', 'mtls_unknown', 'mtls_not_allowed', 'mtls_expired'] as const

const Refused = refusedAs<(typeof mtlsReasons)[number]>(
  createError('JW_CERTIFICATE_INVALID', 'The client certificate is not accepted', 401)
)

export default edgeConcern({
  name: 'mtlsAuth',
  options: orOff(MtlsAuth),
  apiFacts: () => ({
    security: { certificate: { type: 'mutualTLS' } },
    responses: { 401: 'The client certificate is missing or not accepted.' }
  }),
  provides: ['consumer'],
  hasNoGroups: true,
  authenticates: { counts: null, onlyDeclared: (options) => (options as MtlsAuthOptions).allow === undefined },
  credentials,
  innerAliases: { ca: 'write it under listen.tls.clientCertificate' },
  check: checkMtlsAuth,
  checkAll: checkRoutes,
  explain: (_options, example) => withoutCredentials(example, 'mtls_missing (an example has no client certificate)'),
  async plugin(_fastify, context) {
    return (options, route, shadow, refused) => ({
      onRequest: authenticateBy(certificateMethod(options, context), route, context, shadow, refused)
    })
  }
})

/** The decision on a certificate, for one state of the declared consumers. */
interface Decision {
  readonly version: number
  /** Milliseconds since 1970. */
  readonly expires: number
  readonly result: Consumer | 'mtls_unknown' | 'mtls_not_allowed'
}

function certificateMethod(options: MtlsAuthOptions, context: ConcernContext): Method<ClientCertificate> {
  const { consumers, clock } = context
  const decide = decider(options, consumers)
  // A connection has one object for its certificate.
  const known = new WeakMap<ClientCertificate, Decision>()
  return {
    // No scheme is registered for client certificates.
    challenge: `mTLS realm="${options.realm}"`,
    find: (request) => request.clientCertificate,
    verify(certificate: ClientCertificate, request: FastifyRequest) {
      let decision = known.get(certificate)
      if (decision === undefined || decision.version !== consumers.version) {
        const x509 = x509Of(certificate)
        const result = decide(certificate, namesOf(x509))
        decision = { version: consumers.version, expires: x509.validToDate.getTime(), result }
        known.set(certificate, decision)
      }
      const { expires, result } = decision
      // A connection may be open for longer than its certificate is valid.
      if (clock.date() >= expires) throw new Refused('mtls_expired')
      if (typeof result === 'string') throw new Refused(result)
      request.consumer = result
    },
    refusal: (error) =>
      error === null
        ? { error: new Missing(), reason: 'mtls_missing' }
        : { error: error as Error, reason: error instanceof Refused ? error.reason : null },
    remove() {}
  }
}

/** Returns the function that decides on certificates. */
function decider({ allow, consumer: kind }: MtlsAuthOptions, consumers: ConsumerRegistry) {
  const isAllowed = Array.isArray(allow) ? allowTest(allow) : () => true
  return (certificate: ClientCertificate, names: CertificateNames): Decision['result'] => {
    if (!isAllowed(certificate, names)) return 'mtls_not_allowed'
    const declared = ownerOf(names, consumers)
    if (declared !== undefined) return declared
    const id = allow === undefined ? undefined : kind === 'subject' ? certificate.subject : names.of[kind][0]
    if (id === undefined || id === '') return 'mtls_unknown'
    // Never the declared consumer of that name by chance.
    return consumerOf({ id: consumers.named(id) === undefined ? id : `mtls|${id}` })
  }
}

/** Returns the declared consumer with the most specific name of a certificate; with its issuer before one without. */
function ownerOf({ of, issuer }: CertificateNames, consumers: ConsumerRegistry): Consumer | undefined {
  for (const kind of kinds) {
    for (const name of of[kind]) {
      const owner =
        consumers.find('mtlsAuth', idOf(kind, name, issuer)) ?? consumers.find('mtlsAuth', idOf(kind, name, null))
      if (owner !== undefined) return owner.consumer
    }
  }
  return undefined
}
