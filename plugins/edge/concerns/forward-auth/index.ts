/**
 * Forward auth: asks a server whether a request may pass, as Traefik's `forwardAuth`, nginx's `auth_request`, Envoy's
 * `ext_authz` and Open Policy Agent do. Runs before the service is called, also for WebSocket handshakes.
 */
import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Off, orOff } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { durationText } from '../../../../config/units.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { edgeRouteOf } from '../../attach.ts'
import { AuthFailure, AuthServer } from '../../bridge/auth-server.ts'
import { serverText } from '../../bridge/check-auth-server.ts'
import { fieldValue } from '../../bridge/response-fields.ts'
import { Undecided } from '../../bridge/undecided.ts'
import type { HeaderFilter } from '../../bridge/upstream-headers.ts'
import { decorateUpstreamHeaders, setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import type { UpstreamRequests } from '../../bridge/upstream-request.ts'
import { ByteLru } from '../../byte-lru.ts'
import { edgeConcern } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import type { GivenConsumer } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import { bodyAfter, readFirst } from '../../protocol/first-body.ts'
import { hasBody } from '../../protocol/request-body.ts'
import { isShadow, recordError } from '../../shadow.ts'
import { checkForwardAuth } from './check.ts'
import type { Kept } from './decider.ts'
import { Decider, measuresOf } from './decider.ts'
import type { Allowed, Refused } from './decision.ts'
import { refusedReason } from './decision.ts'
import type { ForwardAuthOptions } from './options.ts'
import { ForwardAuth } from './options.ts'
import { outgoingFor } from './outgoing.ts'

const Refusal = createError('JW_AUTH_REFUSED', 'The request is not allowed', 403)

const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

type Done = (error?: Error) => void

export default edgeConcern({
  name: 'forwardAuth',
  options: orOff(ForwardAuth),
  apiFacts: () => ({ responses: { 401: 'The request has no valid credentials.', 403: 'The request is not allowed.' } }),
  provides: ['consumer'],
  hasNoGroups: true,
  provided: (options: ForwardAuthOptions) => (options.consumer === undefined || isShadow(options) ? [] : ['consumer']),
  aliases: { authRequest: 'write edge.forwardAuth', extAuthz: 'write edge.forwardAuth', opa: 'write edge.forwardAuth' },
  innerAliases: {
    address: 'write url',
    uri: 'write url',
    authRequestHeaders: 'write requestHeaders',
    authResponseHeaders: 'write responseHeaders',
    upstreamHeaders: 'write responseHeaders',
    trustForwardHeader: 'write listen.trustProxy',
    failureModeAllow: 'write onFailure: allow'
  },
  // Other options could let clients' headers pass that the route drops. The consumer is that of a method of authentication.
  forConsumers: { phases: ['onRequest'], options: Off },
  check: checkForwardAuth,
  explain(options) {
    const { timeout, onFailure } = options
    const otherwise = onFailure === 'allow' ? 'lets it pass' : 'refuses with 503'
    const then = isShadow(options)
      ? 'the request does not wait'
      : `without a decision in ${durationText(timeout)} ${otherwise}`
    return `asks ${serverText(options)} whether the request may pass; ${then}`
  },
  // A service is scripted in tests, a URL is not.
  isolate: (options) => options.url === undefined && options,
  credentials: {
    schema: Type.String({ minLength: 1, description: 'Value of the header that `edge.forwardAuth.consumer` names.' }),
    ids: (value) => [[value as string, '']]
  },
  async plugin(fastify, { config, stores, meter, log, clock: { now }, consumers }) {
    decorateUpstreamHeaders(fastify)
    // The bridge adds it after the concerns.
    const requests = () => fastify.getDecorator<UpstreamRequests>('upstreamRequests')

    return (options, routeOptions, shadow, refused) => {
      const { name } = edgeRouteOf(routeOptions.config)!
      const { url, service, path = '/', timeout, maxConcurrent, maxResponseSize, maxBodySize, cache } = options
      const target = { url, service, path, timeout, maxConcurrent, maxResponseSize }
      const server = stores.claim(
        'jingwei.auth-server',
        target,
        () => new AuthServer(target, log),
        (unclaimed) => unclaimed.close()
      )
      const known =
        cache && stores.claim('jingwei.forward-auth', { name, options }, () => new ByteLru<Kept>(cache.maxSize))
      dropHeaders(routeOptions, options.responseHeaders)
      const services = [...(routeOptions.config?.route?.services ?? []), ...(service === undefined ? [] : [service])]
      let filter: HeaderFilter | null | undefined
      const isDropped = () => {
        filter ??= requests().trust.filterFor({ services })
        return filter
      }
      const outgoing = outgoingFor(options, config.edge.requestId.header, requests, isDropped)
      const decider = new Decider(options, server, known ?? null, measuresOf(meter, name), now)

      const bodyOf = async (request: FastifyRequest, reply: FastifyReply): Promise<Buffer | null> => {
        if (!options.forwardBody || !hasBody(request.raw)) return null
        const hold = request.server.bodyMemory.holdFor(request, reply)
        const body = await readFirst(request.raw, maxBodySize, (bytes) => hold.take(bytes))
        if (body === null) throw new TooLarge(maxBodySize)
        return body
      }
      const decide = async (request: FastifyRequest, body: Buffer | null): Promise<Allowed | Refused | null> => {
        try {
          return await decider.decide(request, outgoing(request, body))
        } catch (error) {
          if (!(error instanceof AuthFailure)) throw error
          if (options.onFailure === 'allow') return null
          throw new Undecided('forward_auth', error)
        }
      }
      const enforce = (request: FastifyRequest, reply: FastifyReply, done: Done) => (body: Buffer | null) =>
        decide(request, body).then(
          (decision) => {
            if (decision?.isAllowed === false) return refuse(request, reply, decision, refused, done)
            if (decision !== null) accept(request, reply, decision, consumers)
            done()
          },
          (error) => {
            if (error instanceof Undecided) request.refusalReason = error.reason
            done(error)
          }
        )
      /** Lets the request go on without the decision, which is recorded when it arrives. */
      const observe =
        (record: RecordRefusal, request: FastifyRequest, reply: FastifyReply, done: Done) => (body: Buffer | null) => {
          decide(request, body).then(
            (decision) => {
              if (decision?.isAllowed === false) record(request, 'JW_AUTH_REFUSED', refusedReason, reply)
            },
            (error) => recordError(record, request, error, error instanceof Undecided ? error.reason : undefined, reply)
          )
          done()
        }

      return {
        onRequest: (request, reply, done) => {
          const judge = shadow === null ? enforce(request, reply, done) : observe(shadow, request, reply, done)
          bodyOf(request, reply).then(judge, done)
        },
        ...(options.forwardBody && {
          preParsing: (request, _reply, payload, done) => done(null, bodyAfter(request.raw, payload as Readable))
        })
      }
    }
  }
})

function accept(
  request: FastifyRequest,
  reply: FastifyReply,
  { forService, forClient, consumer }: Allowed,
  consumers: ConsumerRegistry
): void {
  for (const [name, values] of forService) setUpstreamHeader(request, name, values)
  setHeaders(reply, forClient)
  if (consumer !== null) request.consumer = consumerFor(consumer, consumers)
}

/** Returns the consumer for a name that the server has sent. It is never the declared consumer of that name by chance. */
function consumerFor(name: string, consumers: ConsumerRegistry): GivenConsumer {
  const declared = consumers.find('forwardAuth', name)
  if (declared !== undefined) return declared.consumer
  return { id: consumers.named(name) === undefined ? name : `forward-auth|${name}` }
}

/** Responds with the refusal of the server. */
function refuse(
  request: FastifyRequest,
  reply: FastifyReply,
  { status, forClient, body }: Refused,
  refused: RecordRefusal,
  done: (error?: Error) => void
): void {
  request.refusalReason = refusedReason
  setHeaders(reply, forClient)
  if (body === null && status >= 400) {
    done(Object.assign(new Refusal(), { statusCode: status }))
    return
  }
  refused(request, 'JW_AUTH_REFUSED')
  request.failure = 'JW_AUTH_REFUSED'
  request.isOwnResponse = true
  reply.code(status)
  if (body === null) reply.send()
  else {
    if (!reply.hasHeader('content-type')) reply.header('content-type', 'text/plain; charset=utf-8')
    reply.send(body)
  }
}

/** Sets header fields for the client, without values that HTTP cannot carry. */
function setHeaders(reply: FastifyReply, fields: Allowed['forClient']): void {
  for (const [name, given] of fields) {
    const values = given.filter((value) => fieldValue.test(value))
    if (values.length > 0) reply.header(name, values.length === 1 ? values[0] : values)
  }
}
