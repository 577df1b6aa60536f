/** Removes a field from each line of a JSON stream (application/x-ndjson). Each line is forwarded at once. */
import type { FastifyInstance } from 'fastify'
import { mapLines, withHeaders } from 'jingwei/plugin'

export default async function withoutFieldInLines(fastify: FastifyInstance, { field }: { field: string }) {
  const plain = { 'accept-encoding': 'identity', range: null }
  fastify.mesh.use((dispatch) => (opts, handler) => dispatch(withHeaders(opts, plain), handler), { per: 'request' })
  const change = (line: string) => JSON.stringify(JSON.parse(line), (key, value) => (key === field ? undefined : value))
  fastify.addHook('onSend', async (_request, reply, payload) => {
    const isLines = /^application\/x-ndjson\b/i.test(String(reply.getHeader('content-type')))
    return isLines ? mapLines(payload, change) : payload
  })
}
