import { edgeConcern, Type } from 'jingwei/plugin'

export default edgeConcern({
  name: 'tenant',
  options: Type.Object({ header: Type.String({ description: 'Header.' }) }, { additionalProperties: false }),
  order: { after: 'jwt' },
  check(options, at, { report }) {
    if (options.header === 'host') report.fault(`${at}/header`, 'must be another header')
  },
  async plugin(_fastify, { meter, log }) {
    const seen = meter.counter({ name: 'tenant_total', help: 'Requests.' }).labels()
    return (options, route) => {
      log.debug({ url: route.url }, 'tenant')
      return {
        onRequest(request, reply, done) {
          seen.inc()
          reply.header('x-tenant', request.headers[options.header] ?? 'none')
          done()
        }
      }
    }
  }
})
