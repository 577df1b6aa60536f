import { maskUrl } from '../../../../config/credentials.ts'
import type { Meter } from '../../../meter.ts'
import type { KeySet } from './jwks.ts'

interface Watched {
  readonly url: string
  readonly set: KeySet
}

/**
 * Makes the metrics of key sets, by URL with masked credentials. Of key sets with the same masked URL, the series has the worst
 * value. Returns a function that removes them.
 */
export function watchKeySets(meter: Meter, sets: readonly Watched[]): () => void {
  const byUrl = () => Map.groupBy(sets, ({ url }) => maskUrl(url))
  const up = meter.gauge({
    name: 'jingwei_edge_key_set_up',
    help: 'Result of the last fetch of the key set: 1 if it succeeded, else 0.',
    labelNames: ['url'],
    collect(add) {
      for (const [url, same] of byUrl()) {
        const known = same.map(({ set }) => set.isUp()).filter((isUp) => isUp !== null)
        if (known.length > 0) add({ url }, known.includes(false) ? 0 : 1)
      }
    }
  })
  const age = meter.gauge({
    name: 'jingwei_edge_key_set_age_seconds',
    help: 'Time since the last successful fetch of the key set; absent before the first one.',
    labelNames: ['url'],
    collect(add) {
      for (const [url, same] of byUrl()) {
        const ages = same.map(({ set }) => set.age()).filter((ageMs) => ageMs !== null)
        if (ages.length > 0) add({ url }, Math.max(...ages) / 1000)
      }
    }
  })
  return () => {
    up()
    age()
  }
}
