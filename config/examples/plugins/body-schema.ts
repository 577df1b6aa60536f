/** Rejects bodies that do not fit a JSON Schema: `options: { schema: … }`. The service gets the client's bytes unchanged. */
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'

export default async function bodySchema(fastify: FastifyInstance, { schema }: { schema: object }) {
  fastify.addHook('preParsing', async (request, _reply, payload) => {
    const body = await buffer(payload) // bounded by edge.bodyLimit
    const value: unknown = await new Response(body).json().catch(() => undefined)
    const statusCode = value === undefined ? 400 : request.validateInput(value, schema) ? null : 422
    if (statusCode !== null) throw Object.assign(new Error('The body does not fit the schema'), { statusCode })
    return Readable.from([body])
  })
}
