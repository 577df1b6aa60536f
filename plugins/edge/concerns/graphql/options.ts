/** `edge.graphql`: its options. */
import type { Static } from 'typebox'
import { Count, orOff, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const PersistedQueries = Type.Object(
  {
    manifest: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          "File with the known queries, or folder of such files (`*.json`): Apollo's persisted query manifest, or a mapping of ids to queries, as Relay's compiler writes it. Read when the configuration is loaded."
      })
    ),
    only: Type.Boolean({
      default: false,
      description:
        'Refuse all queries that are not in the manifest. A client may send the id of a query or its exact text.'
    }),
    automatic: orOff(
      Size(
        'Memory for queries that clients register by their SHA-256 (automatic persisted queries), for each process. Those that were used least recently are forgotten.'
      ),
      { default: false }
    )
  },
  {
    ...strict,
    description: 'Queries that clients may send by an id or a hash, instead of their text. The service gets the text.'
  }
)

const Field = Type.Object(
  {
    cost: Type.Integer({
      minimum: 0,
      default: 1,
      description: 'Cost of the field, without the fields that it selects.'
    }),
    listSize: Count('Number of items that the field returns if no list argument limits it.', { default: 1 })
  },
  strict
)

export const Graphql = Type.Object(
  {
    maxBody: Size('Largest request body.', { default: '256kb' }),
    maxTokens: Count('Most tokens of a document. Checked before it is parsed.', { default: 5000, maximum: 100_000 }),
    maxDepth: orOff(Count('Most levels of nested fields.'), { default: 15 }),
    maxAliases: orOff(Count('Most aliases. Those of a fragment count each time that it is spread.'), { default: 30 }),
    maxRootFields: orOff(Count('Most fields at the uppermost level of an operation.'), { default: 20 }),
    maxCost: orOff(Count('Highest cost: the estimated number of fields in the response.'), { default: 5000 }),
    maxBatch: Count('Most operations in one request, as a JSON array. 1: arrays are refused.', {
      default: 1,
      maximum: 100
    }),
    fields: Type.Optional(
      Type.Record(Type.String(), Field, { description: 'Costs of fields by their name, whatever their type.' })
    ),
    listArguments: Type.Array(
      Type.String({ pattern: '^[_A-Za-z][_0-9A-Za-z]*$', expected: 'the name of an argument' }),
      {
        default: ['first', 'last', 'limit'],
        description: 'Arguments that limit the number of items of a field: they multiply its cost.'
      }
    ),
    introspection: Type.Boolean({ default: true, description: 'Allow queries for the schema: `__schema`, `__type`.' }),
    persistedQueries: Type.Optional(PersistedQueries)
  },
  { ...strict, description: 'Limits and persisted queries, for routes to a GraphQL service.' }
)

const { persistedQueries: _ofRoute, ...limits } = Graphql.properties

/** Limits of a consumer. Its persisted queries are those of the route. */
export const GraphqlOfConsumer = orOff(
  Type.Object(limits, {
    ...strict,
    description: 'Limits in place of those of `edge.graphql`. The persisted queries are those of the route.'
  })
)

export type GraphqlOptions = Static<typeof Graphql>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    graphql?: GraphqlOptions | false
  }
}
