import type { FastifyTypeProvider } from 'fastify'
import type { Static, TSchema } from 'typebox'

/**
 * Types of handlers by the schemas of their routes: `fastify.withTypeProvider<TypeBoxTypeProvider>()`
 * (https://fastify.dev/docs/latest/Reference/Type-Providers/).
 */
export interface TypeBoxTypeProvider extends FastifyTypeProvider {
  readonly validator: this['schema'] extends TSchema ? Static<this['schema']> : unknown
  readonly serializer: this['schema'] extends TSchema ? Static<this['schema']> : unknown
}
