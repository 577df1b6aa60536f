/** Removes a field from the JSON responses of a service: `options: { field: … }`, and `scope: routes`. */
import type { Readable } from 'node:stream'
import { json } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'
import { withHeaders } from 'jingwei/plugin'

export default async function withoutField(fastify: FastifyInstance, { field }: { field: string }) {
  const plain = { 'accept-encoding': 'identity', range: null } // the whole JSON, not compressed, so that it can be parsed
  fastify.mesh.use((dispatch) => (opts, handler) => dispatch(withHeaders(opts, plain), handler), { per: 'request' })
  fastify.addHook('onSend', async ({ method }, reply, payload) => {
    const isJson = /^application\/json\b/i.test(String(reply.getHeader('content-type')))
    if (isJson) reply.removeHeader('content-length') // for HEAD, too: the length of the changed body is unknown
    if (!isJson || method === 'HEAD' || reply.statusCode === 304) return payload
    return JSON.stringify(await json(payload as Readable), (key, value) => (key === field ? undefined : value))
  })
}
