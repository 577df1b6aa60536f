/** Changes the query of a request target. */

export type Values = readonly (readonly [name: string, values: readonly string[]])[]

export interface QueryRules {
  /** Parameters that are kept; null for all. */
  readonly only: ReadonlySet<string> | null
  readonly removed: ReadonlySet<string>
  readonly renames: ReadonlyMap<string, string>
  /** Values are encoded; names are not. */
  readonly set: Values
  readonly add: Values
  readonly append: Values
}

/** Returns a name as services read it. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

function rawName(part: string): string {
  const end = part.indexOf('=')
  return end === -1 ? part : part.slice(0, end)
}

const encoded = (name: string): string => encodeURIComponent(name.toWellFormed())

/** Returns the changed target, and a function that parses its query. */
export function changedQuery(
  target: string,
  { only, removed, renames, set, add, append }: QueryRules
): { readonly target: string; readonly query: () => Record<string, string | string[]> } {
  const mark = target.indexOf('?')
  const path = mark === -1 ? target : target.slice(0, mark)
  const given = mark === -1 || mark === target.length - 1 ? [] : target.slice(mark + 1).split('&')
  const replaced = new Set(set.map(([name]) => name))
  const isDropped = (name: string) => removed.has(name) || only?.has(name) === false
  const isHidden = (name: string) => replaced.has(name) || isDropped(name)
  let parts: { name: string; part: string }[] = []
  for (const part of given) {
    const name = decoded(rawName(part))
    if (!isDropped(name)) parts.push({ name, part: withoutHidden(part, isHidden) })
  }
  const present = new Set(parts.map(({ name }) => name))
  const moved = new Set([...renames].flatMap(([from, to]) => (present.has(from) ? [to] : [])))
  if (moved.size > 0) parts = parts.filter(({ name }) => !moved.has(name) || renames.has(name))
  parts = parts.map(({ name, part }) => {
    const to = renames.get(name)
    return to === undefined ? { name, part } : { name: to, part: encoded(to) + part.slice(rawName(part).length) }
  })
  if (replaced.size > 0) parts = parts.filter(({ name }) => !replaced.has(name))
  const names = new Set(parts.map(({ name }) => name))
  const put = (name: string, values: readonly string[]) => {
    for (const value of values) parts.push({ name, part: `${encoded(name)}=${value}` })
  }
  for (const [name, values] of set) put(name, values)
  for (const [name, values] of add) if (!names.has(name) && !replaced.has(name)) put(name, values)
  for (const [name, values] of append) put(name, values)
  const query = parts.map(({ part }) => part).join('&')
  const changed = parts.length === 0 ? (given.length === 0 ? target : path) : `${path}?${query}`
  return { target: changed, query: () => parsed(parts) }
}

/**
 * Some servers separate parameters by semicolons, too: a removed parameter in the value of another one is no parameter once the
 * semicolons are encoded.
 */
function withoutHidden(part: string, isRemoved: (name: string) => boolean): string {
  if (!part.includes(';')) return part
  return part.split(';').some((each) => isRemoved(decoded(rawName(each)))) ? part.replaceAll(';', '%3B') : part
}

function parsed(parts: readonly { name: string; part: string }[]): Record<string, string | string[]> {
  const query = Object.create(null) as Record<string, string | string[]>
  for (const { name, part } of parts) {
    const raw = rawName(part)
    const value = decoded(part.slice(raw.length + 1))
    const before = query[name]
    if (before === undefined) query[name] = value
    else if (Array.isArray(before)) before.push(value)
    else query[name] = [before, value]
  }
  return query
}
