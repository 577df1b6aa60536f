/** Identifiers of users' schemas. */
import type { TSchema } from 'typebox'

/**
 * Returns a user's schema with an `$id`, since the references in it would else be relative to the schema of the file, of which
 * it becomes a part.
 */
export function withId(schema: TSchema, $id: string): TSchema {
  if ('$id' in schema || !JSON.stringify(schema).includes('"$ref"')) return schema
  const { $ref, allOf = [], ...rest } = schema as { $ref?: string; allOf?: object[] }
  // A schema with both would refer to itself: ajv resolves the reference by the `$id`, and that by the reference.
  return $ref === undefined ? { $id, ...schema } : { $id, ...rest, allOf: [{ $ref }, ...allOf] }
}
