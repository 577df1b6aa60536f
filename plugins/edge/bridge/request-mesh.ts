/**
 * Decorates requests with `request.mesh`, for calls from plugins' own routes and hooks. A call has the request's id, caller,
 * forwarding and trace headers, and the headers that concerns set for the service.
 */
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import { RequestMesh } from '../../request-mesh.ts'
import { bound } from '../../response-limit.ts'
import { SEALED } from '../async-context.ts'
import { goneSignal } from '../protocol/client-gone.ts'
import { parentOf } from '../request-trace.ts'
import type { UpstreamRequests } from './upstream-request.ts'

const known = new WeakMap<FastifyRequest, RequestMesh>()

/** Ends the calls of `request.mesh` whose responses are open. */
export const endCalls = (request: FastifyRequest): void => known.get(request)?.endOpen()

export default fp(
  async (fastify) => {
    const requests = fastify.getDecorator<UpstreamRequests>('upstreamRequests')
    const behalf = { onBehalfOf: (request: FastifyRequest) => requests.onBehalfOf(request), goneSignal, parentOf }
    const bounded = fastify.getDecorator<Dispatcher>('mesh').compose(bound)
    if (!fastify.hasDecorator(SEALED)) {
      fastify.addHook('onResponse', (request, _reply, done) => {
        endCalls(request)
        done()
      })
    }
    fastify.decorateRequest('mesh', {
      getter(this: FastifyRequest) {
        let calls = known.get(this)
        if (calls === undefined) {
          calls = new RequestMesh(this, behalf, bounded)
          known.set(this, calls)
        }
        return calls
      }
    })
  },
  { name: 'jingwei-request-mesh', fastify: '5.x', dependencies: ['jingwei-request-state', 'jingwei-client-gone'] }
)
