/** Texts that replace a whole path: `/v2/user/:id/*` with parameters of the match, `/v2/$1` with groups of an expression. */

/** Static text, or the name of a parameter or number of a group in its place. */
export type TemplatePart = { readonly text: string } | { readonly name: string }

/** Parses parameters, as in a match: `:id`, `*` at the end for the rest of the path, `::` for a colon. */
export const templateParts = (text: string): TemplatePart[] =>
  partsOf(text, /::|:([^/(.:*-]+)|(\*)$/g, (found) => (found === '::' ? ':' : null))

/** Parses groups: `$1`, `$$` for a dollar sign. Another `$` stays as it is. */
export const substitutionParts = (text: string): TemplatePart[] =>
  partsOf(text, /\$\$|\$(\d)/g, (found) => (found === '$$' ? '$' : null))

function partsOf(text: string, special: RegExp, literal: (found: string) => string | null): TemplatePart[] {
  const parts: TemplatePart[] = []
  let at = 0
  let before = ''
  for (const { 0: found, 1: name, 2: star, index } of text.matchAll(special)) {
    before += text.slice(at, index) + (literal(found) ?? '')
    at = index + found.length
    if (literal(found) !== null) continue
    parts.push({ text: before }, { name: name ?? star ?? '' })
    before = ''
  }
  return [...parts, { text: before + text.slice(at) }].filter((part) => !('text' in part) || part.text !== '')
}
