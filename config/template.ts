/**
 * Templates: text with references in braces, `/users/{params.id}`. A reference names a value, and may have a text for a
 * missing one: `{query.page|1}`. There are no expressions: a template is data, and evaluating it runs no code.
 */

export interface Reference<Source> {
  readonly source: Source
  /** Text that replaces a missing value. Null without one. */
  readonly substitute: string | null
  /** The reference as it is written, without braces; for messages. */
  readonly text: string
}

/** Texts and references in their order. */
export type Template<Source> = readonly (string | Reference<Source>)[]

/** Pieces of a template: doubled braces, references, a single brace, text. */
const piece = /\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+/g

/**
 * Parses a template. `parseSource` gets a reference without its substitute, and the whole of it. Throws an error whose message
 * is the fault.
 */
export function parseTemplate<Source>(
  text: string,
  parseSource: (path: string, text: string) => Source
): Template<Source> {
  const parts: (string | Reference<Source>)[] = []
  let literal = ''
  for (const [found] of text.matchAll(piece)) {
    if (found === '{' || found === '}') {
      throw new Error(`"${found}" has no counterpart in "${text}"; write "${found}${found}" for the character itself`)
    }
    if (!found.startsWith('{') || found === '{{') {
      literal += found === '{{' || found === '}}' ? found[0] : found
      continue
    }
    if (literal !== '') parts.push(literal)
    literal = ''
    const inner = found.slice(1, -1)
    const bar = inner.indexOf('|')
    const path = bar === -1 ? inner : inner.slice(0, bar)
    parts.push({ source: parseSource(path, inner), substitute: bar === -1 ? null : inner.slice(bar + 1), text: inner })
  }
  if (literal !== '') parts.push(literal)
  return parts
}

/**
 * Returns the message of a fault that names parts of a template. `from`: the text before the variables of the environment were
 * replaced, if it has some; their values may be secrets.
 */
export const templateFault = (message: string, from: string | undefined): string =>
  from === undefined
    ? message
    : `"${from}" is not a template with the values of its variables: braces stand for references; write "{{" and "}}" for the characters themselves`

/** Returns the references of a template. */
export const referencesOf = <Source>(template: Template<Source>): Reference<Source>[] =>
  template.filter((part) => typeof part !== 'string')

/** Returns the reference if the template consists of it alone, so that its value keeps its type. */
export function soleReference<Source>(template: Template<Source>): Reference<Source> | null {
  const [first] = template
  return template.length === 1 && typeof first === 'object' ? first : null
}
