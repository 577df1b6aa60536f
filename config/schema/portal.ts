/** Schema of the routes that show the OpenAPI documents of services: `routes[].portal`. */
import type { Static } from 'typebox'
import { Duration, Either, Size, strict } from './kit.ts'
import Type from './type.ts'

const Source = Either(
  { type: 'object', required: ['file'], properties: { file: {} } },
  Type.Object({ file: Type.String({ minLength: 1, description: 'File with the document, in JSON or YAML.' }) }, strict),
  Type.Object(
    {
      path: Type.String({
        pattern: '^/',
        expected: 'a path that starts with /',
        description: 'Path at which the service has its document, in JSON or YAML. The call goes through the mesh.'
      })
    },
    strict
  ),
  { expected: '{ path: /openapi.json } or { file: openapi.yaml }' }
)

export const Portal = Type.Object(
  {
    title: Type.String({ minLength: 1, default: 'API', description: 'Title of the document and of the page.' }),
    version: Type.String({ minLength: 1, default: '1.0.0', description: 'Version of the API.' }),
    description: Type.Optional(Type.String({ description: 'Text below the title.' })),
    services: Type.Record(Type.String(), Source, {
      minProperties: 1,
      description: 'The services, each with the place of its OpenAPI document (3.0 or 3.1).'
    }),
    refresh: Duration('Age at which the documents are fetched again, with the next request.', { default: '5m' }),
    timeout: Duration('Longest time for one document.', { default: '5s' }),
    maxDocumentSize: Size('Largest document.', { default: '2mb' })
  },
  {
    ...strict,
    description: 'OpenAPI documents of services as one, with a page, instead of `service`. See routes/portal.md.'
  }
)

export type PortalConfig = Static<typeof Portal>
