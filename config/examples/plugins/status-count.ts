/** Counts the responses of services by status, and logs those with 5xx. */
import type { FastifyInstance } from 'fastify'

export default async function statusCount(fastify: FastifyInstance) {
  const labelNames = ['service', 'status']
  const seen = fastify.meter.counter({ name: 'service_responses_total', help: 'By service and status.', labelNames })
  fastify.addHook('onResponse', async ({ exchange, log }, { statusCode }) => {
    if (!exchange?.call) return
    seen.labels(exchange.call.service, statusCode).inc()
    if (statusCode >= 500) log.warn({ instance: exchange.call.instance, status: statusCode }, 'a service failed')
  })
}
