import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import type { Checked, Key } from '../../../config/concern.ts'
import { gatewayOnly } from '../../../config/concern.ts'
import { isStandardHeader } from '../../../config/header-names.ts'
import { HeaderName, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { Config } from '../../../config/schema.ts'
import { isRequestId } from '../../http-syntax.ts'
import { globalConcern } from '../concern.ts'

declare module '../../../config/schema.ts' {
  interface EdgeDefaults {
    requestId: RequestIdOptions
  }
}

interface RequestIdOptions {
  readonly header: string
  readonly trustClient: boolean
}

const key: Key = {
  name: 'requestId',
  aliases: { correlationId: 'write edge.requestId' },
  options: Type.Object(
    {
      header: HeaderName(
        'Header of the request id: read from the client, sent to the service, returned in the response.',
        { default: 'x-request-id' }
      ),
      trustClient: Type.Boolean({
        default: true,
        description: "Use the client's id if it is well-formed; otherwise every request gets a new one."
      })
    },
    strict
  ),
  levels: gatewayOnly,
  default: {},
  protects: false,
  perRequestHeaders: ({ header }: RequestIdOptions) => [header],
  check({ header }: RequestIdOptions, at, { report }: Checked) {
    if (!report.usable(`${at}/header`) || !isStandardHeader(header)) return
    report.fault(`${at}/header`, `"${header}" has a meaning of its own and cannot carry the request id`)
  }
}

/** Returns the function that returns the id of a request: a new one, or the client's. */
export function idOf({ header, trustClient }: RequestIdOptions) {
  const name = header.toLowerCase()
  return ({ headers }: Pick<IncomingMessage, 'headers'>): string => {
    const given = headers[name]
    return trustClient && isRequestId(given) ? given : randomUUID()
  }
}

/** Gives each request an id, or uses the client's, and returns it in the response. The bridge sends it to the service. */
const plugin = fp<Config>(
  async (fastify, { edge }) => {
    const header = edge.requestId.header.toLowerCase()
    fastify.setGenReqId(idOf(edge.requestId))
    fastify.addHook('onRequest', (request, reply, done) => {
      reply.header(header, request.id)
      done()
    })
  },
  { name: 'jingwei-request-id', fastify: '5.x' }
)

export default globalConcern('request-id', plugin, { keys: [key], noShadow: 'it refuses no request' })
