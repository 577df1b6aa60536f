import { maskCredentials } from '../../../../config/credentials.ts'
import type { Meter } from '../../../meter.ts'
import type { KeySet } from './jwks.ts'

/** Makes the metrics of key sets, by URL with its credentials masked. Returns a function that ends them. */
export function watchKeySets(
  meter: Meter,
  sets: readonly { readonly url: string; readonly set: KeySet }[]
): () => void {
  const up = meter.gauge({
    name: 'jingwei_edge_key_set_up',
    help: 'Whether the key set could be fetched the last time.',
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
    help: 'Time since the key set was fetched; absent while none ever was.',
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
