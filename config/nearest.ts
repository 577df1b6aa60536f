/** Optimal string alignment: how many letters were added, lost, changed or swapped with their neighbour. */
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

/** `; did you mean "service"?`, or nothing when no candidate is close. */
export function didYouMean(text: string, candidates: Iterable<string>): string {
  // A third of the letters may be wrong; and no one mistypes a name of hundreds.
  let best = Math.max(1, Math.floor(text.length / 3)) + 1
  let found: string | undefined
  if (text.length > 64) return ''
  for (const candidate of candidates) {
    const d = distance(text.toLowerCase(), candidate.toLowerCase())
    if (d < best) [best, found] = [d, candidate]
  }
  return found === undefined ? '' : `; did you mean "${found}"?`
}
