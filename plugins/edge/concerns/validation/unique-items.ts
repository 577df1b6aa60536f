import { spend } from './budget.ts'

/** Returns whether no two items are equal. The work is linear in their size, but for the order of keys. */
export function hasUniqueItems(items: readonly unknown[]): boolean {
  const seen = new Set<string>()
  for (const item of items) {
    const text = canonical(item)
    spend(text.length)
    if (seen.has(text)) return false
    seen.add(text)
  }
  return true
}

/** Returns a text that is equal for equal values. */
function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([name, each]) => `${JSON.stringify(name)}:${canonical(each)}`).join()}}`
}
