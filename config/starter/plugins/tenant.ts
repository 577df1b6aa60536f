/** Refuses requests without a tenant on the routes that have `config: { tenant: required }`, and counts the others. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type {} from 'jingwei/plugin' // types of what the gateway adds to Fastify, such as `fastify.meter`

/** Keys of `routes[].config` that this plugin reads. The gateway checks their values, and refuses other keys. */
export const routeConfig = { tenant: { enum: ['required', 'optional'] } }

interface Options {
  header?: string
}

export default async function tenant(fastify: FastifyInstance, { header = 'x-tenant' }: Options) {
  const requests = fastify.meter
    .counter({ name: 'tenant_requests_total', help: 'Requests that name a tenant.' })
    .labels()

  const name = header.toLowerCase() // as in `request.headers`

  fastify.addHook('onRoute', (route) => {
    const { tenant } = (route.config ?? {}) as { tenant?: 'required' | 'optional' }
    if (tenant === undefined) return

    const check = async (request: FastifyRequest) => {
      if (request.headers[name]) requests.inc()
      else if (tenant === 'required') throw new TenantMissing(header)
    }
    route.onRequest = [...[route.onRequest ?? []].flat(), check]
  })
}

class TenantMissing extends Error {
  readonly statusCode = 400
  readonly code = 'TENANT_MISSING'

  constructor(header: string) {
    super(`The header ${header} is required`)
  }
}
