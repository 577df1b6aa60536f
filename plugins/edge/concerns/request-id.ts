import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'

/** Ids that are safe in headers and logs. */
const wellFormed = /^[\w.:/+=@-]{1,128}$/

/** Gives each request an id, or keeps the client's, and tells it back; the bridge sends it to the service. */
export default fp<Config>(
  async (fastify, { edge }) => {
    const header = edge.requestId.header.toLowerCase()
    const { trustClient } = edge.requestId
    fastify.setGenReqId((request: Pick<IncomingMessage, 'headers'>) => {
      const given = request.headers[header]
      return trustClient && typeof given === 'string' && wellFormed.test(given) ? given : randomUUID()
    })
    fastify.addHook('onRequest', (request, reply, done) => {
      reply.header(header, request.id)
      done()
    })
  },
  { name: 'jingwei-request-id', fastify: '5.x' }
)
