/** Copies of parts of OpenAPI documents, whose names become unique and whose dialect becomes that of version 3.1. */

export type Part = Readonly<Record<string, unknown>>

export const isPart = (value: unknown): value is Part =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Most values of one document, and their depth. */
const mostValues = 200_000
const deepest = 100

/** Kinds of components (OpenAPI 3.1, 4.8.7). Other names could be those of members of every object. */
const kinds: ReadonlySet<string> = new Set([
  'schemas', 'responses', 'parameters', 'examples', 'requestBodies', 'headers', 'securitySchemes', 'links', 'callbacks',
  'pathItems'
]) // biome-ignore format: a list

export const isKind = (name: string): boolean => kinds.has(name)

const ofComponents = /^#\/components\/([A-Za-z]+)\/([^/]+)$/

/** Copies parts of the document of one service. Names of its components get the prefix `SERVICE.`. */
export class Copier {
  readonly #prefix: string
  readonly #is30: boolean
  readonly #mostCharacters: number
  #values = 0
  #characters = 0

  /**
   * `is30`: the document has version 3.0, whose schemas have other words for null and for exclusive limits. `mostCharacters`
   * bounds the copies: an alias of YAML stands for any number of long texts.
   */
  constructor(service: string, is30: boolean, mostCharacters: number) {
    this.#prefix = `${service}.`
    this.#is30 = is30
    this.#mostCharacters = mostCharacters
  }

  name(component: string): string {
    return `${this.#prefix}${component.replace(/[^\w.-]/g, '_')}`
  }

  #count(characters: number): void {
    if (++this.#values > mostValues) throw new Error(`the document has more than ${mostValues} values`)
    this.#characters += characters
    if (this.#characters > this.#mostCharacters)
      throw new Error(`the document stands for more than ${this.#mostCharacters} characters`)
  }

  /** Throws if the document is too large or too deep. */
  copy(value: unknown, depth = 0): unknown {
    this.#count(typeof value === 'string' ? value.length : 0)
    if (depth > deepest) throw new Error(`the document is deeper than ${deepest} levels`)
    if (Array.isArray(value)) return (value as unknown[]).map((each) => this.copy(each, depth + 1))
    if (!isPart(value)) return value
    if (typeof value.$ref === 'string') return this.#reference(value.$ref)
    // Not by assignment, which would set the prototype for a member "__proto__".
    const members = Object.entries(value).map(([key, each]) => [key, this.#member(key, each, depth)] as const)
    const copied = Object.fromEntries(members)
    return this.#is30 ? converted(copied) : copied
  }

  #member(key: string, value: unknown, depth: number): unknown {
    this.#count(key.length)
    const copied = this.copy(value, depth + 1)
    if (key === 'operationId' && typeof copied === 'string') return `${this.#prefix}${copied}`
    if (key !== 'mapping' || !isPart(copied)) return copied
    return Object.fromEntries(
      Object.entries(copied).map(([name, each]) => [name, typeof each === 'string' ? this.#target(each) : each])
    )
  }

  /** References out of the components cannot be followed by readers of the merged document: they become any value. */
  #reference(reference: string): object {
    const [, kind] = ofComponents.exec(reference) ?? []
    return kind !== undefined && isKind(kind) ? { $ref: this.#target(reference) } : {}
  }

  #target(reference: string): string {
    const [, kind, name] = ofComponents.exec(reference) ?? []
    return kind === undefined || !isKind(kind) ? reference : `#/components/${kind}/${this.name(decoded(name!))}`
  }
}

/** Returns a token of a JSON pointer as text. */
const decoded = (text: string): string => text.replaceAll('~1', '/').replaceAll('~0', '~')

/** Returns a schema of version 3.0 as one of 3.1, which is JSON Schema; other objects stay as they are. */
function converted(part: Record<string, unknown>): Record<string, unknown> {
  const { nullable, exclusiveMinimum, exclusiveMaximum, ...rest } = part
  // A mapping of properties may have these names.
  if ([nullable, exclusiveMinimum, exclusiveMaximum].some(isPart)) return part
  const limits: Record<string, unknown> = {}
  if (exclusiveMinimum === true && typeof rest.minimum === 'number') limits.exclusiveMinimum = rest.minimum
  else if (typeof exclusiveMinimum === 'number') limits.exclusiveMinimum = exclusiveMinimum
  if (exclusiveMaximum === true && typeof rest.maximum === 'number') limits.exclusiveMaximum = rest.maximum
  else if (typeof exclusiveMaximum === 'number') limits.exclusiveMaximum = exclusiveMaximum
  const { minimum, maximum, ...others } = rest
  const kept: Record<string, unknown> = {
    ...others,
    ...(minimum !== undefined && exclusiveMinimum !== true && { minimum }),
    ...(maximum !== undefined && exclusiveMaximum !== true && { maximum }),
    ...limits
  }
  if (nullable !== true || typeof kept.type !== 'string') return kept
  return { ...kept, type: [kept.type, 'null'] }
}
