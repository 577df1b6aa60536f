/**
 * Entry `jingwei/mesh/fastify`: the mesh in a Fastify server, without a gateway.
 *
 * ```ts
 * await fastify.register(mesh, { services: { orders: { instances: ['http://127.0.0.1:9101'] } } })
 * fastify.get('/orders', (request) => request.mesh.json('orders', '/orders'))
 * ```
 */
import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { parseDuration } from '../config/units.ts'
import { errorTable } from './error-table.ts'
import { headerPairs, isRequestId, withMissing } from './http-syntax.ts'
import { ForwardingHandler } from './mesh/core/handlers/forwarding-handler.ts'
import type { DispatchController, Interceptor } from './mesh/core/types.ts'
import type { FastifyMesh } from './mesh/mesh.ts'
import type { CallHeaders, MeshOptions, MeshSettings } from './mesh-api.ts'
import { createMesh, NotReadyError } from './mesh-api.ts'
import { RequestMesh } from './request-mesh.ts'
import { bound } from './response-limit.ts'

export type { CallOptions, JsonOptions, RequestMesh, StreamOptions } from './request-mesh.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The mesh, an undici `Dispatcher` whose origins are services, `http://orders.mesh`. */
    mesh: FastifyMesh
  }
}

/** The settings of `createMesh`, its options, and those of the server. */
export interface FastifyMeshOptions
  extends MeshSettings,
    Pick<MeshOptions, 'registry' | 'meter' | 'headers' | 'perRequestHeaders' | 'log' | 'sources'> {
  /**
   * Longest time for which the server's start waits for the first results of discovery, such as `5s`; then it starts with
   * a warning. 0 for none. Default: 5 s.
   */
  readonly readyTimeout?: string | number
}

/** Headers of a client's request that its calls pass on. */
const traceContext = ['traceparent', 'tracestate', 'baggage']

/** The client left before its response was complete. */
class ClientGone extends Error {
  readonly code = 'JW_CLIENT_GONE'
  /** nginx's status, for the log. */
  readonly statusCode = 499

  constructor() {
    super('the client closed the connection')
  }
}

/** Gives errors the status of their response, since the server does not have the gateway's error handler. */
class StatusHandler extends ForwardingHandler {
  override onResponseError(controller: DispatchController, error: Error): void {
    this.next.onResponseError?.(controller, withStatus(error))
  }
}

const status: Interceptor = (dispatch) => (opts, handler) => dispatch(opts, new StatusHandler(handler))

/** Adds the status that Fastify responds with: 502, 503 or 504, as the gateway does. */
function withStatus(error: Error): Error {
  if ('statusCode' in error) return error
  const { code } = error as { code?: unknown }
  const row = typeof code === 'string' && Object.hasOwn(errorTable, code) ? errorTable[code] : undefined
  return row === undefined ? error : Object.assign(error, { statusCode: row[0] })
}

/** Fastify's own ids, `req-1`, which count the requests of one process, so that each process has the same ones. */
const ownId = /^req-[\da-z]{1,6}$/

/** Ids that requests without one got here. */
const made = new WeakMap<FastifyRequest, string>()

/** Returns the id that the client sent, else that of the program's `genReqId` or `requestIdHeader`, else a new one. */
function requestIdOf(request: FastifyRequest): string {
  const given = request.headers['x-request-id']
  if (isRequestId(given)) return given
  if (isRequestId(request.id) && !ownId.test(request.id)) return request.id
  const id = made.get(request) ?? randomUUID()
  made.set(request, id)
  return id
}

/** Returns the headers of the program's own function, and those that a request passes on, which are fewer. */
function headersOf(own: CallHeaders | undefined): CallHeaders {
  return (call) => {
    const headers = own?.(call)
    const request = call.request as FastifyRequest | undefined
    if (request === undefined) return headers
    const passed = headerPairs(traceContext.flatMap((name) => [name, request.headers[name]]))
    return withMissing(headers, ['x-request-id', requestIdOf(request), ...passed])
  }
}

function readyMs(timeout: string | number, pluginTimeout: number | undefined): number {
  const ms = typeof timeout === 'string' ? parseDuration(timeout) : timeout
  if (ms === null || !(ms >= 0))
    throw new TypeError(`readyTimeout: expected a duration such as "5s", found "${timeout}"`)
  if (pluginTimeout && ms >= pluginTimeout) {
    throw new Error(`readyTimeout: ${ms} ms must be less than Fastify's pluginTimeout, which is ${pluginTimeout} ms`)
  }
  return ms
}

/**
 * Decorates a server with `fastify.mesh` and `request.mesh`. The server waits for discovery before it is ready, and closes
 * the mesh after its last request.
 */
export default fp<FastifyMeshOptions>(
  async (fastify, options) => {
    const { registry, meter, headers, perRequestHeaders, log = fastify.log, sources, ...rest } = options
    const { readyTimeout = '5s', ...settings } = rest
    if (fastify.hasDecorator('mesh') || fastify.hasRequestDecorator('mesh')) {
      throw new Error(
        'jingwei/mesh/fastify: this server has a mesh already, its own or that of the gateway: use fastify.mesh'
      )
    }
    const timeout = readyMs(readyTimeout, fastify.initialConfig.pluginTimeout)
    const mesh = createMesh(settings, {
      log,
      ...(registry && { registry }),
      ...(meter && { meter }),
      ...(sources && { sources }),
      ...(perRequestHeaders && { perRequestHeaders }),
      headers: headersOf(headers)
    })
    fastify.decorate('mesh', mesh)
    fastify.addHook('onClose', () => mesh.close())
    fastify.addHook('onReady', async () => {
      try {
        await mesh.ready({ timeout })
      } catch (error) {
        if (!(error instanceof NotReadyError)) throw error
        fastify.log.warn({ services: error.services }, `${error.message}; the server starts without their instances`)
      }
    })

    const seam = mesh.compose(bound, status)
    const responses = new WeakMap<FastifyRequest, ServerResponse>()
    const known = new WeakMap<FastifyRequest, RequestMesh>()
    const create = (request: FastifyRequest): RequestMesh => {
      const gone = new AbortController()
      const calls = new RequestMesh(request, { onBehalfOf: () => [], goneSignal: () => gone.signal }, seam)
      known.set(request, calls)
      const abort = () => gone.abort(new ClientGone())
      const { raw } = request
      const response = responses.get(request)
      // Not the 'close' of the request, which is emitted once its body has been read.
      if (raw.aborted || (response?.destroyed && !isFinished(response))) abort()
      response?.once('close', () => {
        if (!isFinished(response)) abort()
      })
      // Over HTTP/2, a response is finished even if its stream was reset.
      if (raw.httpVersionMajor > 1) raw.once('aborted', abort)
      return calls
    }
    fastify.decorateRequest('mesh', {
      getter(this: FastifyRequest) {
        return known.get(this) ?? create(this)
      }
    })
    fastify.addHook('onRequest', (request, reply, done) => {
      responses.set(request, reply.raw)
      done()
    })
    fastify.addHook('onResponse', (request, _reply, done) => {
      known.get(request)?.endOpen()
      done()
    })
  },
  { name: 'jingwei-mesh-library', fastify: '5.x' }
)

function isFinished(response: ServerResponse): boolean {
  return response.writableFinished || ('stream' in response && response.writableEnded)
}
