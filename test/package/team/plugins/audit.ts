import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Interceptor } from 'jingwei/plugin'
import { dropHeaders, ForwardingHandler, mapLines, withHeaders } from 'jingwei/plugin'

export const routeConfig = { audit: { type: 'boolean' } }

const sign: Interceptor = (dispatch) => (opts, handler) =>
  dispatch(
    withHeaders(opts, { 'x-attempt': String(opts.call?.attempts ?? 0), 'x-route': opts.route?.name ?? null }),
    handler
  )

class First extends ForwardingHandler {
  override onRequestSent(): void {
    this.next.onRequestSent?.()
  }
}

export default async function audit(fastify: FastifyInstance, { header = 'x-audit' }: { header?: string }) {
  const seen = fastify.meter.counter({ name: 'audit_total', help: 'Requests.', labelNames: ['status'] })
  const own = fastify.stores.claim(
    'audit.seen',
    { header },
    () => new Map<string, number>(),
    (map) => map.clear()
  )
  fastify.mesh.use(sign, { per: 'attempt', name: 'sign', routes: ['orders'] })
  fastify.mesh.use((dispatch) => (opts, handler) => dispatch(opts, new First(handler)), { per: 'request' })
  if (fastify.dryRun) return
  fastify.metrics.getSingleMetric('audit_total')
  fastify.addHook('onRoute', (route) => {
    const name: string | undefined = route.config?.route?.name
    dropHeaders(route, ['x-key'])
    if (name === undefined) return
    const hook = async (request: FastifyRequest, reply: FastifyReply) => {
      const id = String(request.headers['x-key'])
      request.consumer = { id }
      own.set(id, 1)
      reply.header(header, request.listener)
    }
    route.onRequest = [...[route.onRequest ?? []].flat(), hook]
  })
  fastify.addHook('onSend', async (_request, _reply, payload) => mapLines(payload, (line) => line))
  fastify.addHook('onResponse', async ({ exchange, failure, consumer, upstreamHeaders, clientCertificate }, reply) => {
    seen.labels(reply.statusCode).inc()
    void [
      exchange?.call?.instance,
      exchange?.bytesSent,
      failure,
      consumer?.id,
      upstreamHeaders?.length,
      clientCertificate?.subject
    ]
  })
  fastify.get<{ Params: { id: string } }>(
    '/home/:id',
    { config: { edge: { bodyLimit: '1mb' } } },
    async ({ mesh, params }) => mesh.json<{ total: number }>('orders', `/orders/${params.id}`)
  )
  fastify.admin?.get('/audit', async () => [...own])
}
