/** Content negotiation by `Accept` (RFC 9110, 12.5.1). */

/** More ranges than this are ignored; clients send a handful. */
const mostRanges = 32

/** Returns the first of the types with the highest quality; -1 if the client accepts none. Without a field, the first of all. */
export function preferred(field: string | undefined, types: readonly string[]): number {
  if (field === undefined || field.trim() === '') return 0
  const ranges = field.split(',', mostRanges).flatMap(rangeOf)
  let [best, most] = [-1, 0]
  for (const [index, type] of types.entries()) {
    const quality = qualityOf(type, ranges)
    if (quality > most) [best, most] = [index, quality]
  }
  return best
}

interface Range {
  readonly range: string
  readonly quality: number
}

function rangeOf(text: string): Range[] {
  const [range = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase())
  const weight = parameters.find((parameter) => parameter.startsWith('q='))
  const quality = weight === undefined ? 1 : Number(weight.slice(2))
  return quality >= 0 && quality <= 1 ? [{ range, quality }] : []
}

/** Returns the quality by the most specific range. */
function qualityOf(type: string, ranges: readonly Range[]): number {
  const kinds = [type, `${type.slice(0, type.indexOf('/'))}/*`, '*/*']
  for (const kind of kinds) {
    const found = ranges.find(({ range }) => range === kind)
    if (found !== undefined) return found.quality
  }
  return 0
}
