/** Merges streams of items in the order of arrival. */
import { closeIterator } from './close-iterator.ts'
import { checkAll, checkIterable } from './misuse.ts'

export type Sources = Readonly<Record<string, AsyncIterable<unknown>>>

/** An item and the name of its source. */
export type Merged<S extends Sources> = {
  readonly [K in keyof S & string]: {
    readonly source: K
    readonly value: S[K] extends AsyncIterable<infer T> ? T : never
  }
}[keyof S & string]

export interface MergeOptions<F> {
  /**
   * Returns the item that takes the place of a source that failed; the others continue. Without it, the first failure
   * fails the whole.
   */
  readonly onError?: (source: string, error: unknown) => F
}

type Arrival = { readonly source: string } & (
  | { readonly result: IteratorResult<unknown> }
  | { readonly error: unknown }
)

/**
 * Merges sources in the order in which their items arrive. It requests the next item of a source only after the last one was
 * taken, so that it holds one item per source, and a slow reader slows the services down. It closes all sources when the
 * reader stops, and when it fails.
 */
export async function* merge<S extends Sources, F = never>(
  sources: S,
  { onError }: MergeOptions<F> = {}
): AsyncGenerator<Merged<S> | F, void, undefined> {
  checkAll(sources, (source, items) => checkIterable(`merge: ${source}`, items))
  const iterators = new Map<string, AsyncIterator<unknown>>()
  const arrivals: Arrival[] = []
  let wake = () => {}
  const arrive = (arrival: Arrival) => {
    arrivals.push(arrival)
    wake()
  }
  const request = (source: string, iterator: AsyncIterator<unknown>) => {
    Promise.try(() => iterator.next()).then(
      (result) => arrive({ source, result }),
      (error: unknown) => arrive({ source, error })
    )
  }
  try {
    for (const [source, items] of Object.entries(sources)) {
      const iterator = items[Symbol.asyncIterator]()
      iterators.set(source, iterator)
      request(source, iterator)
    }
    while (iterators.size > 0) {
      const arrival = arrivals.shift()
      if (arrival === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
        continue
      }
      const { source } = arrival
      if ('error' in arrival) {
        iterators.delete(source)
        if (onError === undefined) throw arrival.error
        yield onError(source, arrival.error) as Awaited<F>
      } else if (arrival.result.done) iterators.delete(source)
      else {
        yield { source, value: arrival.result.value } as Awaited<Merged<S>>
        request(source, iterators.get(source)!)
      }
    }
  } finally {
    for (const iterator of iterators.values()) closeIterator(iterator)
  }
}
