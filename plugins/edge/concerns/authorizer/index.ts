/** Authentication by a function of the user. Every failure of the function refuses its request, and no other one. */
import { basename } from 'node:path'
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { durationText } from '../../../../config/units.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { asError } from '../../../thrown.ts'
import type { GuardedFunction } from '../../../user-function.ts'
import { removeHeader } from '../../authentication/credentials.ts'
import type { Method, Refusal } from '../../authentication/method.ts'
import { NoCredentials } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { CredentialsMissing } from '../../authentication/refused.ts'
import { Unavailable } from '../../bridge/undecided.ts'
import { decorateUpstreamHeaders, headerValue, setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { GivenConsumer } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import { goneSignal } from '../../protocol/client-gone.ts'
import { decisionOf } from './decision.ts'
import type { AuthorizerOptions } from './options.ts'
import { AuthorizerSchema, Caller, checkAuthorizer } from './options.ts'

const Refused = createError('JW_AUTH_REFUSED', 'The request is not allowed', 403)
const Failed = createError('JW_PLUGIN_FAILED', 'the authorizer has failed: %s', 500)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const authorizerReasons = [
  'authorizer_missing',
  'authorizer_refused',
  'authorizer_failed',
  'authorizer_timeout',
  'authorizer_unavailable'
] as const

/** A refusal by the function, or a failure of it. */
class NotAccepted extends Error {
  readonly refusal: Refusal

  constructor(error: Error, reason: (typeof authorizerReasons)[number], challenge?: string) {
    super(error.message)
    this.refusal = { error, reason, ...(challenge !== undefined && { challenge }) }
  }
}

export default edgeConcern({
  name: 'authorizer',
  options: orOff(AuthorizerSchema),
  apiFacts: () => ({ responses: { 401: 'The credentials are missing or wrong.', 403: 'The request is not allowed.' } }),
  provides: ['consumer'],
  authenticates: { counts: 'guesses' },
  callsModule: 'module',
  credentials: { schema: Caller, ids: (value) => [[value as string, '']] },
  check: checkAuthorizer,
  explain: ({ module, timeout }) =>
    `asks the function of ${basename(module)}, which has ${durationText(timeout)} to decide`,
  complete: (options, absolute) => ({ ...options, module: absolute(options.module) }),
  async plugin(fastify, context) {
    decorateUpstreamHeaders(fastify)
    return (options, routeOptions, shadow, refused) => {
      const authorize = fastify.userFunctions?.get(options.module)
      if (authorize === undefined) {
        throw new Error(`edge.authorizer: the configuration has to name the module ${options.module}, too`)
      }
      if (options.headers.length > 0) dropHeaders(routeOptions, options.headers)
      const method = functionMethod(options, authorize, context.consumers)
      return { onRequest: authenticateBy(method, routeOptions, context, shadow, refused) }
    }
  }
})

function functionMethod(
  options: AuthorizerOptions,
  authorize: GuardedFunction,
  consumers: ConsumerRegistry
): Method<true> {
  const { challenge, hideHeaders } = options
  const names = new Set(options.headers.map((name) => name.toLowerCase()))
  const fault = (message: string) =>
    new TypeError(`the authorizer ${options.module} returned a wrong value: ${message}`)
  return {
    challenge,
    mayTakeLong: true,
    // The function alone knows which credentials it reads.
    find: () => true,
    async verify(_found, request) {
      let decision: ReturnType<typeof decisionOf>
      try {
        decision = decisionOf(await inTime(options, authorize, request), names, fault)
      } catch (error) {
        throw failureOf(error, options.module, request)
      }
      if (decision === null) throw new NoCredentials()
      if (decision.refuse !== undefined) {
        const { refuse: statusCode, message, challenge } = decision
        const error = Object.assign(new Refused(), { statusCode, ...(message !== undefined && { message }) })
        throw new NotAccepted(error, 'authorizer_refused', challenge)
      }
      const { consumer, headers = {} } = decision
      if (consumer !== null)
        request.consumer = typeof consumer === 'string' ? consumerFor(consumer, consumers) : consumer
      for (const [name, value] of Object.entries(headers)) {
        setUpstreamHeader(request, name.toLowerCase(), headerValue(value)!)
      }
    },
    refusal: (error) => {
      if (error === null) return { error: new CredentialsMissing(), reason: 'authorizer_missing' }
      return error instanceof NotAccepted ? error.refusal : { error: error as Error, reason: null }
    },
    remove(request) {
      for (const name of hideHeaders) removeHeader(request, name)
    }
  }
}

/** Logs the failure of a function, and returns the refusal of its request. */
function failureOf(error: unknown, module: string, request: FastifyRequest): NotAccepted {
  if (error instanceof NotAccepted) return error
  request.log.error({ err: error, plugin: module }, 'the authorizer has failed: the request is refused')
  const { message, code } = asError(error) as Error & { code?: unknown }
  // An error of `request.mesh`, which the function did not handle.
  const isOutage = typeof code === 'string' && code.startsWith('JW_')
  if (isOutage) return new NotAccepted(Object.assign(new Unavailable(), { cause: error }), 'authorizer_unavailable')
  return new NotAccepted(Object.assign(new Failed(message), { cause: error }), 'authorizer_failed')
}

/** Calls the function. Rejects after the timeout, and when the client has disconnected. */
async function inTime(
  { timeout, options = {} }: AuthorizerOptions,
  authorize: GuardedFunction,
  request: FastifyRequest
): Promise<unknown> {
  const gone = goneSignal(request)
  const failed = () => new NotAccepted(asError(gone.reason), 'authorizer_failed')
  // An earlier concern may have taken longer than the client has waited: then no event follows.
  if (gone.aborted) throw failed()
  const { promise, reject } = Promise.withResolvers<never>()
  const controller = new AbortController()
  const end = (error: Error) => {
    reject(error)
    controller.abort(error)
  }
  const timer = setTimeout(() => end(new NotAccepted(new Unavailable(), 'authorizer_timeout')), timeout)
  const leave = () => end(failed())
  gone.addEventListener('abort', leave, { once: true })
  try {
    // The race also handles a rejection that comes too late.
    return await Promise.race([promise, authorize(request, { options, signal: controller.signal })])
  } finally {
    clearTimeout(timer)
    gone.removeEventListener('abort', leave)
  }
}

/** Returns the consumer for a name that the function has returned. It is never the declared consumer of that name by chance. */
function consumerFor(name: string, consumers: ConsumerRegistry): GivenConsumer {
  const declared = consumers.find('authorizer', name)
  if (declared !== undefined) return declared.consumer
  return { id: consumers.named(name) === undefined ? name : `authorizer|${name}` }
}
