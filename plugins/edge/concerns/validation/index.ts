/**
 * Checks requests by JSON Schemas before the service gets them. The service gets the bytes of the client. A refusal names the
 * places of the errors, but no values of the request.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { edgeRouteOf } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import { takeWhole } from '../../protocol/whole-body.ts'
import { checkValidation } from './check.ts'
import { Guard } from './guard.ts'
import type { Operation } from './operation.ts'
import type { ValidationOptions } from './options.ts'
import { Validation } from './options.ts'
import { pathTextsOf } from './path-texts.ts'
import { asProblem } from './refusals.ts'
import { compileRoute, withAbsoluteFiles } from './route-schemas.ts'

export default edgeConcern({
  name: 'validation',
  options: orOff(Validation),
  aliases: {
    'requestValidator|requestValidation|jsonSchema|schemaValidation|validator':
      'write edge.validation: { body, query … }'
  },
  innerAliases: {
    'bodySchema|schema': 'write body: { content: { application/json: SCHEMA } }',
    'allowedContentTypes|contentTypes': 'write each under body.content',
    'headerSchema|headersSchema': 'write headers',
    'parameterSchema|parameters|querystring|querySchema':
      'write query, path and headers, each a JSON Schema of an object',
    'rejectedCode|rejectedMsg': 'refusals have status 400, in the format of RFC 9457'
  },
  check: checkValidation,
  complete: (options, absolute) => withAbsoluteFiles(options, absolute),
  explain: (options) => {
    const { query, path, headers, cookies, body } = options
    const parts = Object.entries({ query, path, headers, cookies, body }).filter(([, each]) => each !== undefined)
    return `checks ${parts.map(([name]) => name).join(', ')} by JSON Schema`
  },
  async plugin(_fastify, { meter }) {
    const refused = meter.counter({
      name: 'jingwei_edge_validation_refused_total',
      help: 'Requests that do not match the schemas of their route, by reason; in shadow mode they are passed on.',
      labelNames: ['route', 'reason']
    })
    // The options of a route are one object for all of its paths.
    const compiled = new WeakMap<ValidationOptions, Operation>()
    const operationOf = (options: ValidationOptions): Operation => {
      let operation = compiled.get(options)
      if (operation === undefined) {
        operation = compileRoute(options, process.cwd(), (key, fault) => {
          throw new Error(`edge.validation: ${key}${fault.place.pointer}: ${fault.message}`)
        })
        compiled.set(options, operation)
      }
      return operation
    }
    return (options, route: RouteOptions, shadow) => {
      const { name } = edgeRouteOf(route.config)!
      const operation = operationOf(options)
      const pathTexts = pathTextsOf(route)
      const count = (reason: string) => refused.labels(name, reason).inc()
      const guard = new Guard(() => ({ operation, path: null }), pathTexts, options, count, shadow)
      const preParsing: preParsingHookHandler = (request: FastifyRequest, reply: FastifyReply, payload, done) =>
        guard.check(request, reply, payload as Readable, done)
      return {
        preParsing,
        ...(route.config?.route?.isBridged && { preValidation: takeWhole }),
        preSerialization: asProblem
      }
    }
  }
})
