import { maskCredentials } from '../../../../config/credentials.ts'
import type { Meter } from '../../../meter.ts'
import type { KeySet } from './jwks.ts'

/** Makes the metrics of key sets, by URL with masked credentials. Returns a function that removes them. */
export function watchKeySets(
  meter: Meter,
  sets: readonly { readonly url: string; readonly set: KeySet }[]
): () => void {
  const up = meter.gauge({
    name: 'jingwei_edge_key_set_up',
    help: 'Result of the last fetch of the key set: 1 if it succeeded, else 0.',
    labelNames: ['url'],
    collect(add) {
      for (const { url, set } of sets) {
        const isUp = set.isUp()
        if (isUp !== null) add({ url: maskCredentials(url) }, isUp ? 1 : 0)
      }
    }
  })
  const age = meter.gauge({
    name: 'jingwei_edge_key_set_age_seconds',
    help: 'Time since the last successful fetch of the key set; absent before the first one.',
    labelNames: ['url'],
    collect(add) {
      for (const { url, set } of sets) {
        const ageMs = set.age()
        if (ageMs !== null) add({ url: maskCredentials(url) }, ageMs / 1000)
      }
    }
  })
  return () => {
    up()
    age()
  }
}
