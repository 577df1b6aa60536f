/** The JSON Schema for editors: it describes a file as written, before variables, defaults and units are applied. */
import type { Unit } from './units.ts'
import { units } from './units.ts'

type Schema = { [key: string]: unknown }

/** Returns a JSON Schema, draft 7, for the schema that the loader validates by. */
export function editorSchema(schema: object): Schema {
  const file = written(schema as Schema)
  const { mesh, ...properties } = file.properties as Record<string, Schema>
  // The loader handles `mesh: false` before it validates the file.
  const off = { const: false }
  const { description, ...section } = mesh ?? {}
  // biome-ignore lint/suspicious/noThenProperty: a JSON Schema keyword
  const choice = { if: off, then: off, else: section, ...(description !== undefined && { description }) }
  const all = { ...properties, ...(mesh && { mesh: choice }) }
  return { $schema: 'http://json-schema.org/draft-07/schema#', ...file, properties: all }
}

/** Alternative for every value: an environment variable. */
const variable = { type: 'string', pattern: '\\$\\{' }

function written(schema: Schema): Schema {
  const { unit, expected: _message, expectedKey: _keyMessage, required, ...rest } = schema
  const copy = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, inner(key, value)]))
  const properties = schema.properties as Record<string, Schema> | undefined
  // A key with a default need not be written.
  const needed = (required as string[] | undefined)?.filter((key) => properties?.[key]?.default === undefined) ?? []
  if (needed.length > 0) copy.required = needed
  if (unit !== undefined) copy.pattern = `${units[unit as Unit].pattern}|${variable.pattern}`
  if (copy.type !== 'integer' && copy.type !== 'boolean') return copy
  const { description, default: preset, ...value } = copy
  return {
    anyOf: [value, variable],
    ...(description !== undefined && { description }),
    ...(preset !== undefined && { default: preset })
  }
}

/** Converts the value of a keyword. These keywords hold schemas; all others hold data, such as defaults and enums. */
function inner(key: string, value: unknown): unknown {
  if (key === 'properties' || key === 'patternProperties') {
    return Object.fromEntries(
      Object.entries(value as Record<string, Schema>).map(([name, each]) => [name, written(each)])
    )
  }
  if (key === 'items' || key === 'then' || key === 'else') return written(value as Schema)
  return value
}
