/**
 * Reading header values that others send. A regular expression that may begin anywhere and ends with `$` or a separator
 * takes quadratic time: `/\/+$/` begins anew at each of 15,000 slashes. These functions look at each character once.
 */

/**
 * The items of a comma-separated value without quoted strings; outer whitespace and empty items are left out. Null for
 * more items than `most`.
 */
export function commaItems(value: string, most: number): string[] | null {
  const items: string[] = []
  let start = 0
  for (let at = 0; at <= value.length; at++) {
    if (at < value.length && value.charCodeAt(at) !== 0x2c) continue
    const item = start === at ? '' : value.slice(start, at).trim()
    start = at + 1
    if (item === '') continue
    if (items.length === most) return null
    items.push(item)
  }
  return items
}

export function withoutEndSlashes(path: string): string {
  let end = path.length
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--
  return path.slice(0, end)
}
