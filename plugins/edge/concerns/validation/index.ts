/**
 * Checks requests by an OpenAPI document or by JSON Schemas, before the service gets them. The service gets the bytes of the client. A refusal names the
 * places of the errors, but no values of the request.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { atOnce, inSlices } from '../../../time-slices.ts'
import type { ApiFacts } from '../../api-facts.ts'
import { edgeRouteOf } from '../../attach.ts'
import { takeWhole } from '../../bridge/whole-request.ts'
import { edgeConcern } from '../../concern.ts'
import { checkRoutes, checkValidation } from './check.ts'
import { operationFinder } from './documented.ts'
import { documentOf, documentOptions, keyOf } from './documents.ts'
import type { Found } from './guard.ts'
import { Guard } from './guard.ts'
import type { Document } from './openapi.ts'
import type { Operation } from './operation.ts'
import type { ValidationOptions } from './options.ts'
import { Validation } from './options.ts'
import { pathTextsOf } from './path-texts.ts'
import { asProblem } from './refusals.ts'
import { responseHook } from './responses.ts'
import { compileRoute, withAbsoluteFiles } from './route-schemas.ts'
import type { SchemaFault } from './sources.ts'

const ofBodies: ApiFacts = {
  ofBodies: true,
  format: 'problem',
  responses: { 413: 'The request body is too large.', 415: 'The request body has another type than the API.' }
}
const ofPaths: ApiFacts = {
  format: 'problem',
  responses: { 404: 'The API has no such path.', 405: 'The path does not have this method.' }
}

export default edgeConcern({
  name: 'validation',
  options: orOff(Validation),
  aliases: {
    'requestValidator|requestValidation|jsonSchema|schemaValidation|validator|openapi|oasValidation|oasValidator':
      'write edge.validation: { openapi: FILE }, or { body, query … } with JSON Schemas'
  },
  innerAliases: {
    'bodySchema|schema': 'write body: { content: { application/json: SCHEMA } }',
    'allowedContentTypes|contentTypes': 'write each under body.content',
    'headerSchema|headersSchema': 'write headers',
    'parameterSchema|parameters|querystring|querySchema':
      'write query, path and headers, each a JSON Schema of an object',
    'apiSpec|spec|schemaFile|document': 'write openapi: FILE',
    allowUnknownQueryParameters: 'write unknownQuery: refuse',
    'notifyOnly|rejectIfNotMatch': 'write mode: shadow',
    'validateResponse|responseValidation': 'write responses: enforce, or responses: shadow',
    'rejectedCode|rejectedMsg': 'refusals have status 400, in the format of RFC 9457'
  },
  apiFacts: ({ openapi, body, undocumented }) => [
    { format: 'problem', responses: { 400: 'The request does not match its schema.' } },
    ...((openapi ?? body) === undefined ? [] : [ofBodies]),
    ...(openapi === undefined || undocumented === 'pass' ? [] : [ofPaths])
  ],
  check: checkValidation,
  checkAll: checkRoutes,
  complete(options, absolute) {
    const { openapi } = options
    return openapi === undefined ? withAbsoluteFiles(options, absolute) : { ...options, openapi: absolute(openapi) }
  },
  explain: (options) => {
    const { openapi, query, path, headers, cookies, body } = options
    if (openapi !== undefined) {
      return `checks requests by ${openapi}${options.responses === false ? '' : `; responses: ${options.responses}`}`
    }
    const parts = Object.entries({ query, path, headers, cookies, body }).filter(([, each]) => each !== undefined)
    return `checks ${parts.map(([name]) => name).join(', ')} by JSON Schema`
  },
  async plugin(_fastify, { config, meter }) {
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
          if (fault.severity !== 'hint')
            throw new Error(`edge.validation: ${key}${fault.place.pointer}: ${fault.message}`)
        })
        compiled.set(options, operation)
      }
      return operation
    }
    const checked = meter.counter({
      name: 'jingwei_edge_validation_responses_total',
      help: 'Responses of services on routes that check them, by result: valid, invalid, unchecked.',
      labelNames: ['route', 'result']
    })
    const documents = new Map<string, Document>()
    const read = (options: ValidationOptions) => documentOf(documentOptions(options), throwFault)
    // In slices, since a large document takes a second.
    for (const { edge } of [config, ...config.routes]) {
      const { validation } = edge
      if (!validation || validation.openapi === undefined || documents.has(keyOf(documentOptions(validation)))) continue
      documents.set(keyOf(documentOptions(validation)), await inSlices(read(validation)))
    }
    const documentFor = (options: ValidationOptions): Document => {
      const key = keyOf(documentOptions(options))
      const document = documents.get(key) ?? atOnce(read(options))
      documents.set(key, document)
      return document
    }
    return (options, route: RouteOptions, shadow) => {
      const { name } = edgeRouteOf(route.config)!
      const count = (reason: string) => refused.labels(name, reason).inc()
      const find =
        options.openapi === undefined
          ? always(operationOf(options))
          : operationFinder(documentFor(options), options, route, config.listen.paths)
      const guard = new Guard(find, pathTextsOf(route), options, count, shadow)
      const preParsing: preParsingHookHandler = (request: FastifyRequest, reply: FastifyReply, payload, done) =>
        guard.check(request, reply, payload as Readable, done)
      return {
        preParsing,
        ...(route.config?.route?.isBridged && { preValidation: takeWhole }),
        preSerialization: asProblem,
        ...(options.responses !== false && {
          onSend: responseHook(
            options,
            options.responses === 'enforce' && shadow === null,
            (request) => guard.responseRules(request),
            (result) => checked.labels(name, result).inc()
          )
        })
      }
    }
  }
})

/** Reports a fault of a document that `check` has not seen, such as that of a plugin's own route. */
function throwFault({ place, message, severity }: SchemaFault): void {
  if (severity === 'fault') throw new Error(`${place.source.file}#${place.pointer}: ${message}`)
}

function always(operation: Operation): () => Found {
  const found = { operation, path: null }
  return () => found
}
