/** Copies of parts of OpenAPI documents, whose names become unique and whose dialect becomes that of version 3.1. */

export type Part = Readonly<Record<string, unknown>>

export const isPart = (value: unknown): value is Part =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Most values of one document, and their depth. */
const mostValues = 200_000
const deepest = 100

const ofComponents = /^#\/components\/([A-Za-z]+)\/([^/]+)$/

/** Copies parts of the document of one service. Names of its components get the prefix `SERVICE.`. */
export class Copier {
  readonly #prefix: string
  readonly #is30: boolean
  #values = 0

  /** `is30`: the document has version 3.0, whose schemas have other words for null and for exclusive limits. */
  constructor(service: string, is30: boolean) {
    this.#prefix = `${service}.`
    this.#is30 = is30
  }

  name(component: string): string {
    return `${this.#prefix}${component.replace(/[^\w.-]/g, '_')}`
  }

  /** Throws if the document is too large or too deep. */
  copy(value: unknown, depth = 0): unknown {
    if (++this.#values > mostValues) throw new Error(`the document has more than ${mostValues} values`)
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
    if (key === 'operationId' && typeof value === 'string') return `${this.#prefix}${value}`
    if (key === 'mapping' && isPart(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.#target(String(each))]))
    }
    return this.copy(value, depth + 1)
  }

  /** References out of the components cannot be followed by readers of the merged document: they become any value. */
  #reference(reference: string): object {
    return ofComponents.test(reference) ? { $ref: this.#target(reference) } : {}
  }

  #target(reference: string): string {
    const [, kind, name] = ofComponents.exec(reference) ?? []
    return kind === undefined ? reference : `#/components/${kind}/${this.name(decoded(name!))}`
  }
}

/** Returns a token of a JSON pointer as text. */
const decoded = (text: string): string => text.replaceAll('~1', '/').replaceAll('~0', '~')

/** Returns a schema of version 3.0 as one of 3.1, which is JSON Schema; other objects stay as they are. */
function converted(part: Record<string, unknown>): Record<string, unknown> {
  const { nullable, exclusiveMinimum, exclusiveMaximum, ...rest } = part
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
