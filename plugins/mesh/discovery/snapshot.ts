/**
 * The discovery snapshot: the last instances of each service on disk, so that a gateway that starts while its registry
 * is unavailable can serve at once. Restored instances are used only until the first response of the source.
 */
import type { Meter } from '../../meter.ts'
import { asError } from '../../thrown.ts'
import type { InstanceSpec, Logger, MeshDeps, Source } from '../core/types.ts'
import type { Restorable } from './loop.ts'
import { messageOf } from './loop.ts'
import type { Entry } from './snapshot-file.ts'
import { readEntries, tryToWrite, writeEntries } from './snapshot-file.ts'

interface SnapshotOptions {
  readonly path: string
  readonly maxAge: number
}

/** Changed by tests only. */
const snapshotTiming = {
  /** Time for which changes are collected before they are written. */
  every: 1000,
  /**
   * Time, at most a tenth of `maxAge`, after which an unchanged snapshot is written again with its new confirmation
   * time.
   */
  refresh: 900_000
}

interface StoredService {
  readonly identity: string
  readonly source: Source
  instances: readonly InstanceSpec[]
  /** Time at which the restored instances had been confirmed, on the mesh's clock; null without restored ones. */
  restoredAt: number | null
  /** Time at which the service ended, on the mesh's clock; null while it runs. */
  endedAt: number | null
}

export class Snapshot {
  readonly #path: string
  readonly #maxAge: number
  readonly #log: Logger
  readonly #now: () => number
  readonly #wall: () => number
  readonly #timing: typeof snapshotTiming
  readonly #entries: ReadonlyMap<string, Entry>
  readonly #services = new Map<string, StoredService>()
  #writes = false
  #writing: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #due = Number.POSITIVE_INFINITY
  #error: string | null = null
  /** Restored or expired entries that have not been logged yet. */
  #found: { instances: number; age: number }[] = []

  constructor(
    { path, maxAge }: SnapshotOptions,
    { log, now }: Pick<MeshDeps, 'log' | 'now'>,
    { wall = Date.now, timing = snapshotTiming } = {}
  ) {
    this.#path = path
    this.#maxAge = maxAge
    this.#log = log
    this.#now = now
    this.#wall = wall
    this.#timing = timing
    this.#entries = this.#read()
  }

  /** Wraps a source so that it starts with the stored instances of the same query, and stores new ones. */
  wrap(service: string, identity: string, source: Restorable): Source {
    const stored: StoredService = { identity, source, instances: [], restoredAt: null, endedAt: null }
    this.#services.set(service, stored)
    return {
      start: (publish) => {
        const restored = this.#restore(this.#entries.get(service), stored)
        if (restored !== undefined) publish(restored)
        source.start((instances) => {
          stored.instances = instances
          publish(instances)
          this.#write(this.#timing.every)
        }, restored)
      },
      status: () => {
        const status = source.status()
        if (status.confirmedAt !== null || stored.restoredAt === null) return status
        return { ...status, confirmedAt: stored.restoredAt, restored: true }
      },
      close: () => {
        stored.endedAt ??= this.#now()
        return source.close()
      }
    }
  }

  /** Enables writing; a process that only inspects the configuration does not change the file. */
  startWriting(): void {
    if (this.#writes) return
    this.#writes = true
    this.#writing = tryToWrite(this.#path).catch((error) => this.#failed(error))
    this.#write(this.#refresh)
  }

  /** Writes the current instances a last time, so that their age counts from now. */
  async close(): Promise<void> {
    clearTimeout(this.#timer)
    if (this.#writes) this.#begin()
    this.#writes = false
    await this.#writing
  }

  get #refresh(): number {
    return Math.min(this.#timing.refresh, Math.max(this.#timing.every, this.#maxAge / 10))
  }

  #read(): Map<string, Entry> {
    try {
      return new Map(readEntries(this.#path)?.map((entry) => [entry.service, entry]))
    } catch (error) {
      const fields = { path: this.#path, err: asError(error) }
      this.#log.warn(
        fields,
        'the discovery snapshot cannot be used; services have no instances until their registry responds'
      )
      return new Map()
    }
  }

  #restore(entry: Entry | undefined, stored: StoredService): readonly InstanceSpec[] | undefined {
    if (entry?.identity !== stored.identity) return undefined
    // The system clock may have been set back; an age is never negative.
    const age = Math.max(0, this.#wall() - entry.confirmedAt)
    if (this.#found.length === 0) queueMicrotask(() => this.#logRestored())
    this.#found.push({ instances: entry.instances.length, age })
    if (age > this.#maxAge) return undefined
    stored.instances = Object.freeze(entry.instances)
    stored.restoredAt = this.#now() - age
    return stored.instances
  }

  /** Logs one line for all services that start together. */
  #logRestored(): void {
    const path = this.#path
    const young = this.#found.filter(({ age }) => age <= this.#maxAge)
    const tooOld = this.#found.length - young.length
    this.#found = []
    if (young.length === 0) {
      const message = 'the discovery snapshot is too old; services have no instances until their registry responds'
      this.#log.warn({ path, tooOld }, message)
      return
    }
    const ageMs = Math.round(Math.max(...young.map(({ age }) => age)))
    const instances = young.reduce((sum, each) => sum + each.instances, 0)
    const fields = { path, services: young.length, instances, ageMs, ...(tooOld > 0 && { tooOld }) }
    this.#log.info(fields, 'instances restored from the discovery snapshot; they serve until their registry responds')
  }

  /** Schedules a write after this time, unless an earlier one is scheduled. */
  #write(after: number): void {
    const due = this.#now() + after
    if (!this.#writes || due >= this.#due) return
    this.#due = due
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#begin()
      this.#write(this.#refresh)
    }, after).unref()
  }

  #begin(): void {
    this.#due = Number.POSITIVE_INFINITY
    this.#writing = this.#writing.then(async () => {
      // If no source has confirmed its instances since the file was read, the file is up to date.
      if (![...this.#services.values()].some(({ source }) => source.status().confirmedAt !== null)) return
      await writeEntries(this.#path, this.#current()).then(
        () => this.#written(),
        (error) => this.#failed(error)
      )
    })
  }

  *#current(): Generator<Entry> {
    for (const [service, stored] of this.#services) {
      const { identity, source, instances, restoredAt, endedAt } = stored
      // A service that ends with the gateway is stored for the next start; one that was removed from the configuration
      // not.
      if (endedAt !== null && this.#now() - endedAt > this.#timing.refresh) {
        this.#services.delete(service)
        continue
      }
      const confirmedAt = source.status().confirmedAt ?? restoredAt
      // An empty entry is not stored: it must not count as a response.
      if (confirmedAt === null || instances.length === 0) continue
      yield { service, identity, confirmedAt: Math.round(this.#wall() - (this.#now() - confirmedAt)), instances }
    }
  }

  #written(): void {
    if (this.#error !== null) this.#log.info({ path: this.#path }, 'the discovery snapshot can be written again')
    this.#error = null
  }

  #failed(error: unknown): void {
    const message = 'the discovery snapshot cannot be written; after a restart no newer instances can be restored'
    if (this.#error === null) this.#log.warn({ path: this.#path, err: asError(error) }, message)
    this.#error = messageOf(error)
  }

  /** True if the last attempt to write the file failed. */
  get failing(): boolean {
    return this.#error !== null
  }

  /** Returns for each service whether its instances are restored ones. */
  restored(): [service: string, restored: boolean][] {
    const lives = ({ restoredAt, endedAt, source }: StoredService) =>
      restoredAt !== null && endedAt === null && source.status().confirmedAt === null
    return [...this.#services].map(([service, stored]) => [service, lives(stored)])
  }
}

export function registerSnapshotMetrics(meter: Meter, snapshot: Snapshot | null): void {
  meter.gauge({
    name: 'jingwei_mesh_discovery_restored',
    help: '1 while the instances are those of the discovery snapshot, because the source has not responded yet.',
    labelNames: ['service'],
    collect: (set) => {
      for (const [service, restored] of snapshot?.restored() ?? []) set({ service }, restored ? 1 : 0)
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_discovery_snapshot_failing',
    help: '1 while the discovery snapshot cannot be written.',
    labelNames: [],
    collect: (set) => set({}, snapshot?.failing ? 1 : 0)
  })
}
