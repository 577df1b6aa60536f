/** Writer of a configuration as YAML, with comments. Values are texts, numbers, booleans, lists and mappings. */

export type Settings = { [key: string]: unknown }

/** Longest line on which a list or mapping is written as a whole. */
const longestLine = 110

/** Texts that need no quotes, and are no number, boolean or null for any YAML parser. */
const plainText = /^(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z/][\w/.:@%=?&+-]*$/i

/** Durations and sizes, which need no quotes either. */
const quantity = /^\d+(?:ms|s|m|h|d|b|kb|mb|gb|%)$/

/** Returns a text as a YAML scalar. JSON's quotes are valid YAML. */
function scalar(value: unknown): string {
  if (typeof value !== 'string') return String(value)
  return quantity.test(value) || (plainText.test(value) && !value.endsWith(':')) ? value : JSON.stringify(value)
}

const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value)
const isMapping = (value: unknown): value is Settings => typeof value === 'object' && value !== null

function flow(value: unknown): string {
  if (isList(value)) return `[${value.map(flow).join(', ')}]`
  if (!isMapping(value)) return scalar(value)
  const members = Object.entries(value).map(([key, each]) => `${scalar(key)}: ${flow(each)}`)
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`
}

/** Returns a configuration as text. `comments` has the comments before a list's member or a mapping. */
export function yamlText(value: Settings, comments: ReadonlyMap<unknown, readonly string[]>): string {
  const isCommented = (each: unknown): boolean =>
    comments.has(each) || (isMapping(each) && Object.values(each).some(isCommented))
  const notes = (each: unknown, indent: string) => (comments.get(each) ?? []).map((text) => `${indent}# ${text}`)

  function block(each: unknown, indent: string): string[] {
    if (isList(each)) return each.flatMap((item) => [...notes(item, indent), ...hung('-', item, indent)])
    return Object.entries(each as Settings).flatMap(([key, item]) => [
      ...notes(item, indent),
      ...hung(`${scalar(key)}:`, item, indent)
    ])
  }

  /** Returns the lines of a value after `head`: on the same line if it fits, else below it. */
  function hung(head: string, item: unknown, indent: string): string[] {
    const line = `${indent}${head} ${flow(item)}`
    const isInner = isMapping(item) && Object.values(item).some(isCommented)
    if (!isMapping(item) || (line.length <= longestLine && !isInner)) return [line]
    const below = `${indent}  `
    const lines = block(item, below)
    if (head !== '-' || comments.has(Object.values(item)[0])) return [`${indent}${head}`, ...lines]
    // The first member of a list's item stands beside the dash.
    return [`${indent}- ${lines[0]!.slice(below.length)}`, ...lines.slice(1)]
  }

  return `${block(value, '').join('\n')}\n`
}
