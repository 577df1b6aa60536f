/** Returns the optimal string alignment distance: number of insertions, deletions, substitutions and swaps of neighbours. */
function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  const at = (i: number, j: number) => rows[i]?.[j] ?? Number.POSITIVE_INFINITY
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    rows.push(row)
    for (let j = 1; j <= b.length; j++) {
      const changed = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Number.POSITIVE_INFINITY
      row.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, changed, swapped))
    }
  }
  return at(a.length, b.length)
}

/** Returns `; did you mean "service"?` for the closest candidate; an empty text if none is close. */
export function didYouMean(text: string, candidates: Iterable<string>): string {
  // Up to a third of the letters may be wrong. Names of more than 64 letters are skipped to bound the cost.
  let best = Math.max(1, Math.floor(text.length / 3)) + 1
  let found: string | undefined
  if (text.length > 64) return ''
  for (const candidate of candidates) {
    const d = distance(text.toLowerCase(), candidate.toLowerCase())
    if (d < best) [best, found] = [d, candidate]
  }
  return found === undefined ? '' : `; did you mean "${found}"?`
}
