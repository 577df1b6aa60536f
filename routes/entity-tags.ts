/** Returns whether a list of entity tags has one, compared weakly (RFC 9110, 13.1.2). */
export function matchesTag(field: string | undefined, tag: string): boolean {
  if (field === undefined) return false
  if (field.trim() === '*') return true
  return field.split(',').some((each) => withoutWeakness(each.trim()) === withoutWeakness(tag))
}

const withoutWeakness = (tag: string) => (tag.startsWith('W/') ? tag.slice(2) : tag)
