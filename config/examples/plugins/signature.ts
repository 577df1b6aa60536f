/** Signs each attempt to call a service: `options: { secret: … }`. For calls of proxied routes, `request.mesh` and `fastify.mesh`. */
import { createHmac } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { withHeaders } from 'jingwei/plugin'

export default async function signature(fastify: FastifyInstance, { secret }: { secret: string }) {
  const sign = (text: string) => createHmac('sha256', secret).update(text).digest('hex')
  fastify.mesh.use(
    (dispatch) => (opts, handler) =>
      dispatch(withHeaders(opts, { 'x-signature': sign(`${opts.method} ${opts.path}`) }), handler),
    { per: 'attempt', name: 'signature' }
  )
}
