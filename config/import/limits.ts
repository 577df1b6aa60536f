/** Names of limits, by which routes share counters. */
import type { Settings } from './yaml-text.ts'

const limitsOf = (edge: unknown): Settings[] => [((edge ?? {}) as Settings).rateLimit ?? []].flat() as Settings[]

/** Limits share counters if all of these are the same. */
const counterOf = ({ name, by, window, algorithm, store }: Settings): string =>
  JSON.stringify([name, by, window, algorithm, store])

/** Removes the names of limits whose counters no other route or consumer shares. Those of `edge` are for all routes. */
export function dropUnshared(edge: Settings, places: readonly Settings[]): void {
  const all = places.map((place) => limitsOf(place.edge))
  const numbers = new Map<string, number>()
  const general = limitsOf(edge).map(counterOf)
  for (const id of [...general, ...general, ...all.flat().map(counterOf)]) numbers.set(id, (numbers.get(id) ?? 0) + 1)
  for (const limit of all.flat()) if (numbers.get(counterOf(limit)) === 1) delete limit.name
}
