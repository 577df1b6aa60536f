/** `edge.validation`: its options. */
import type { Static } from 'typebox'
import { Count, Names, orOff, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const JsonSchema = (description: string) =>
  Type.Optional(Type.Unsafe<Readonly<Record<string, unknown>>>({ type: 'object', description }))

const Body = Type.Object(
  {
    required: Type.Boolean({ default: true, description: 'Refuse POST, PUT and PATCH without a body.' }),
    content: Type.Unsafe<Readonly<Record<string, unknown>>>({
      type: 'object',
      minProperties: 1,
      description:
        'JSON Schemas by media type: `application/json`, `application/*+json`, `text/*`. true: any body of this type. Other types get 415.'
    })
  },
  { ...strict, description: 'The request body.' }
)

export const Validation = Type.Object(
  {
    query: JsonSchema('JSON Schema of an object with the query parameters. Its types decide how texts are read.'),
    path: JsonSchema('JSON Schema of an object with the parameters of `match.path`.'),
    headers: JsonSchema('JSON Schema of an object with the request headers, by names in lower case.'),
    cookies: JsonSchema('JSON Schema of an object with the cookies.'),
    body: Type.Optional(Body),
    openapi: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'OpenAPI document, version 3.0 or 3.1: a YAML or JSON file, instead of schemas here. Read when the configuration is loaded.'
      })
    ),
    basePath: Type.Optional(
      Type.String({
        pattern: '^/([^/?#]+(/[^/?#]+)*)?$',
        expected: 'a path such as /v1',
        description: 'Path before those of the document. Default: the paths of its `servers`.'
      })
    ),
    describes: Names(['service', 'client'], {
      default: 'service',
      description:
        'Paths that the document has. service: as the service gets them, after `path.strip` and `path.rewrite`. client: as clients send them.'
    }),
    undocumented: Names(['refuse', 'pass'], {
      default: 'refuse',
      description: 'Requests that the document does not have. refuse: 404 for a path, 405 for a method.'
    }),
    unknownQuery: Names(['pass', 'refuse'], {
      default: 'pass',
      description: 'Query parameters that the document does not have.'
    }),
    unread: Names(['pass', 'refuse'], {
      default: 'pass',
      description:
        'Bodies of types in the document that the gateway does not read, such as multipart/form-data, and bodies of operations that have none in the document. refuse: 415.'
    }),
    responses: orOff(
      Names(['shadow', 'enforce'], {
        description:
          'Check responses by the document. shadow: a mismatch is counted and logged. enforce: the client gets a 502 instead.'
      }),
      { default: false }
    ),
    maxResponse: Size('Largest JSON response that is checked; it is held in memory.', { default: '1mb' }),
    maxBody: Size('Largest request body that is checked; a larger one gets 413.', { default: '1mb' }),
    maxDepth: Count('Most levels of nested values in a JSON body.', { default: 32, maximum: 100 }),
    maxErrors: Count('Most errors that a response lists.', { default: 10, maximum: 100 })
  },
  { ...strict, description: 'Checks requests by an OpenAPI document, or by JSON Schemas.' }
)

export type ValidationOptions = Static<typeof Validation>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    validation?: ValidationOptions | false
  }
}
