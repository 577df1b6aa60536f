/**
 * Work that the check of one request may take. Schemas that refer to themselves under `anyOf` or `oneOf` can take time
 * exponential in the depth of a value; regular expressions take time for each character. Both are counted. Validators are
 * synchronous, so one counter serves all.
 */

/** The check of a request takes more work than its size allows. */
export class TooMuchWork extends Error {}

/** Work of the smallest request: some 50 ms. */
const least = 1_000_000
/** Additional work for each byte. */
const perByte = 4

let left = 0

/** Runs a check of a value that has `bytes` bytes. Throws `TooMuchWork`. */
export function withBudget<T>(bytes: number, check: () => T): T {
  left = least + bytes * perByte
  return check()
}

/** Counts work. One unit takes some 20 to 100 ns. */
export function spend(work: number): void {
  left -= work
  if (left < 0) throw new TooMuchWork()
}
