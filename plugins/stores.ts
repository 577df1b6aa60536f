/**
 * State that outlives a configuration: counters, key sets, caches, connections. Objects are claimed by a kind and a key. If
 * the next configuration claims the same key, it gets the same object, so that changes elsewhere in the file reset nothing.
 * An object that no configuration claims any longer is disposed of.
 */
import { createHash } from 'node:crypto'
import { TimeSlice } from './time-slices.ts'

interface Log {
  error(fields: object, message: string): void
}
type Dispose<T> = (value: T) => unknown

/** Claims of one configuration. */
export interface Claims {
  /**
   * Returns the object of this kind and key; calls `create` if there is none. Call it while the configuration starts, not
   * for each request: the object is kept until the configuration ends.
   *
   * The key is JSON data (the order of an object's keys does not matter) and must contain everything that the object depends
   * on: a new value gets a new object. Kinds of the gateway begin with `jingwei.`, those of a plugin with its name: two
   * plugins that claim the same kind and key share the object.
   *
   * `dispose` of the last claim is called once no configuration claims the object. It has 10 s; its errors are logged.
   */
  claim<T>(kind: string, key: unknown, create: () => T, dispose?: Dispose<T>): T
}

/** The claims of one configuration, for the code that ends them. */
export interface OpenClaims extends Claims {
  /** Ends the claims. Never rejects. */
  release(): Promise<void>
}

interface Entry {
  readonly kind: string
  readonly value: unknown
  dispose: Dispose<never> | undefined
  claims: number
}

/** The stores of a process. */
export class Stores {
  readonly #entries = new Map<string, Entry>()
  readonly #mostClaims: number
  readonly #disposeMs: number

  /** `mostClaims`: maximum per configuration; only code that claims for each request exceeds it. */
  constructor({ mostClaims = 200_000, disposeMs = 10_000 } = {}) {
    this.#mostClaims = mostClaims
    this.#disposeMs = disposeMs
  }

  /** Opens the claims of one configuration. */
  open(log: Log): OpenClaims {
    const held = new Map<string, Entry>()
    let released = false
    return {
      claim: <T>(kind: string, key: unknown, create: () => T, dispose?: Dispose<T>): T => {
        if (released) throw new Error(`${kind} is claimed for a configuration that has ended`)
        const id = `${kind} ${digestOf(key)}`
        let entry = held.get(id)
        if (entry === undefined) {
          if (held.size >= this.#mostClaims)
            throw new Error(`${kind}: too many claims; is it claimed for each request?`)
          entry = this.#entries.get(id) ?? { kind, value: create(), dispose: dispose as Dispose<never>, claims: 0 }
          entry.claims++
          // Replaced, since a function of the previous configuration would keep that configuration in memory.
          if (dispose !== undefined) entry.dispose = dispose
          held.set(id, entry)
          this.#entries.set(id, entry)
        }
        return entry.value as T
      },
      release: async () => {
        released = true
        const unclaimed: Entry[] = []
        for (const [id, entry] of held) {
          entry.claims--
          if (entry.claims > 0) continue
          this.#entries.delete(id)
          unclaimed.push(entry)
        }
        held.clear()
        const slice = new TimeSlice()
        const ended: Promise<void>[] = []
        for (const entry of unclaimed) {
          ended.push(end(entry, log, this.#disposeMs))
          if (slice.isOver) await slice.next()
        }
        await Promise.all(ended)
      }
    }
  }
}

/** Disposes of an object, with a time limit. */
async function end({ kind, value, dispose }: Entry, log: Log, disposeMs: number): Promise<void> {
  if (dispose === undefined) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(() => {
    log.error(
      { kind },
      `disposing of the state "${kind}" takes more than ${disposeMs / 1000} s; its resources may stay open`
    )
    resolve()
  }, disposeMs)
  const disposed = (async () => dispose(value as never))().catch((err: unknown) => {
    log.error({ err, kind }, `disposing of the state "${kind}" failed; its resources may stay open`)
  })
  await Promise.race([disposed, promise])
  clearTimeout(timer)
}

/** Digest of a key. Keys are not stored, since they may be long and may hold secrets. */
const digestOf = (key: unknown) =>
  createHash('sha256')
    .update(JSON.stringify(key, sorted) ?? 'undefined')
    .digest('base64')

function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}
