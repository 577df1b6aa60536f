/** The declared consumers, found by their names and credentials. */
import type { Key } from '../../../config/concern.ts'
import type { ConsumerConfig } from '../../../config/schema.ts'
import type { Steps } from '../../time-slices.ts'
import type { Consumer } from './consumer.ts'
import { consumerOf } from './consumer.ts'

/** Credentials, and the consumer to whom they belong. */
export interface Found {
  readonly consumer: Consumer
  /** The value of `consumers[].NAME`. */
  readonly value: unknown
}

/** An immutable list of consumers. */
class Snapshot {
  readonly byName = new Map<string, Consumer>()
  /** By the key of a concern and the id of the credentials. */
  readonly byCredentials = new Map<string, Map<string, Found>>()
  readonly kinds = new Map<string, readonly string[]>()

  /** Options of concerns, by concern and text. Equal options are one object, for which concerns make their hooks once. */
  readonly options = new Map<string, unknown>()
  /** The different options by concern. */
  readonly byConcern = new Map<string, unknown[]>()

  static *of(list: readonly ConsumerConfig[], keys: readonly Key[], last: Snapshot): Steps<Snapshot> {
    const snapshot = new Snapshot()
    const known = keys.filter(({ credentials }) => credentials !== undefined)
    for (const { name } of known) snapshot.byCredentials.set(name, new Map())
    const { options, byConcern } = snapshot
    const shared = (name: string, value: unknown) => {
      const id = `${name} ${JSON.stringify(value)}`
      if (!options.has(id)) {
        options.set(id, last.options.has(id) ? last.options.get(id) : value)
        const others = byConcern.get(name)
        if (others === undefined) byConcern.set(name, [options.get(id)])
        else others.push(options.get(id))
      }
      return [name, options.get(id)] as const
    }
    for (const declared of list) {
      yield
      const { name: id, groups, tags, edge } = declared
      const own = edge && Object.fromEntries(Object.entries(edge).map(([name, value]) => shared(name, value)))
      const consumer = consumerOf({ id, groups, tags, ...(own && { edge: own }) })
      snapshot.byName.set(id, consumer)
      const identifying = known.filter(({ name }) => Reflect.get(declared, name) !== undefined)
      for (const { name, credentials } of identifying) {
        const value: unknown = Reflect.get(declared, name)
        for (const [id] of credentials!.ids(value)) snapshot.byCredentials.get(name)!.set(id, { consumer, value })
      }
      snapshot.kinds.set(
        id,
        identifying.map(({ name }) => name)
      )
    }
    return snapshot
  }
}

/** Most consumers that `/admin/consumers` lists. */
const MOST_SHOWN = 1000

export class ConsumerRegistry {
  #snapshot = new Snapshot()
  /** Increased by each change, so that results of searches can be cached. */
  version = 0
  /** File with the consumers, and its error since the last good content. */
  file: string | null = null
  error: string | null = null
  /** Key of Consul with the consumers. */
  key: string | null = null
  /** False until Consul has given a usable list. */
  isKnown = true

  get size(): number {
    return this.#snapshot.byName.size
  }

  /** Replaces all consumers at once. */
  *replace(list: readonly ConsumerConfig[], keys: readonly Key[]): Steps<void> {
    this.#snapshot = yield* Snapshot.of(list, keys, this.#snapshot)
    this.version++
  }

  named(name: string): Consumer | undefined {
    return this.#snapshot.byName.get(name)
  }

  /** Returns the credentials of a concern with an id. */
  find(concern: string, id: string): Found | undefined {
    return this.#snapshot.byCredentials.get(concern)?.get(id)
  }

  /** Returns all credentials of a concern. */
  all(concern: string): Iterable<Found> {
    return this.#snapshot.byCredentials.get(concern)?.values() ?? []
  }

  /** Returns the different options of a concern that consumers have. */
  optionsOf(concern: string): readonly unknown[] {
    return this.#snapshot.byConcern.get(concern) ?? []
  }

  /** Returns the state for the admin port, without credentials. */
  status(): object {
    const { byName, kinds } = this.#snapshot
    const shown = [...byName.values()].slice(0, MOST_SHOWN)
    return {
      file: this.file,
      ...(this.key !== null && { key: this.key, isKnown: this.isKnown }),
      error: this.error,
      count: this.size,
      consumers: shown.map(({ id, groups, tags, edge }) => {
        return { name: id, groups, tags, credentials: kinds.get(id), overrides: Object.keys(edge) }
      })
    }
  }
}

/** The registry of a server without declared consumers. */
export const noConsumers: ConsumerRegistry = new ConsumerRegistry()
