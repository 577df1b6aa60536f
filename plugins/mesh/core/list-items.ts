const comma = 0x2c
const quote = 0x22
const backslash = 0x5c

/**
 * The items of a comma-separated header value (RFC 9110, 5.6.1), without outer whitespace, empty items left out. Commas
 * in quoted strings separate nothing. Null for a quoted string without an end, and for more items than `most`: a header
 * section of 16 KB has room for 8,000, and the work for each of them would cost more than the request.
 */
export function listItems(value: string, most: number): readonly string[] | null {
  const items: string[] = []
  let start = 0
  let isQuoted = false
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at)
    if (code === quote) isQuoted = !isQuoted
    else if (isQuoted) at += code === backslash ? 1 : 0
    else if (code === comma) {
      addItem(items, value, start, at)
      start = at + 1
      if (items.length > most) return null
    }
  }
  addItem(items, value, start, value.length)
  return isQuoted || items.length > most ? null : items
}

function addItem(items: string[], value: string, start: number, end: number): void {
  if (start === end) return
  const item = value.slice(start, end).trim()
  if (item !== '') items.push(item)
}
