/** Finds equal values by a text of each, so that no value is compared with each of many others. */
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

/** Returns the test for values that are equal to one of those in a list. */
export function memberTest(allowed: readonly unknown[]): (value: unknown) => boolean {
  const texts = new Set(allowed.map(canonical))
  const areSimple = !allowed.some(isCompound)
  return (value) => {
    if (!isCompound(value)) return texts.has(canonical(value))
    if (areSimple) return false
    const text = canonical(value)
    spend(text.length)
    return texts.has(text)
  }
}

const isCompound = (value: unknown): value is object => typeof value === 'object' && value !== null

/** Returns a text that is equal for equal values. */
function canonical(value: unknown): string {
  if (!isCompound(value)) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  const names = Object.keys(value)
  if (names.length > 1) names.sort()
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(Reflect.get(value, name))}`).join()}}`
}
