/**
 * Keeps the last instances of each service on disk, so that a gateway that starts while its registry is away serves at
 * once. What was kept serves only until the source's first answer.
 */
import type { Meter } from '../../meter.ts'
import { asError } from '../../thrown.ts'
import type { InstanceSpec, Logger, MeshDeps, Source } from '../core/types.ts'
import type { Restorable } from './loop.ts'
import { messageOf } from './loop.ts'
import type { Entry } from './snapshot-file.ts'
import { readEntries, tryToWrite, writeEntries } from './snapshot-file.ts'

export interface SnapshotOptions {
  readonly path: string
  readonly maxAge: number
}

/** Changed by tests only. */
export const snapshotTiming = {
  /** Changes within this time are written together. */
  every: 1000,
  /** At the latest after this time, or a tenth of `maxAge`, all is written again: unchanged is not old. */
  refresh: 900_000
}

interface Kept {
  readonly identity: string
  readonly source: Source
  instances: readonly InstanceSpec[]
  /** When what was restored had been confirmed, on the mesh's clock; null where nothing was. */
  restoredAt: number | null
  /** When its service ended, on the mesh's clock; null while it runs. */
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
  readonly #kept = new Map<string, Kept>()
  #writes = false
  #writing: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #due = Number.POSITIVE_INFINITY
  #error: string | null = null
  /** Not told yet. */
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

  /** The source, which begins with the instances that were kept as the answer to the same question. */
  keeping(service: string, identity: string, source: Restorable): Source {
    const kept: Kept = { identity, source, instances: [], restoredAt: null, endedAt: null }
    this.#kept.set(service, kept)
    return {
      start: (publish) => {
        const restored = this.#restore(this.#entries.get(service), kept)
        if (restored !== undefined) publish(restored)
        source.start((instances) => {
          kept.instances = instances
          publish(instances)
          this.#write(this.#timing.every)
        }, restored)
      },
      status: () => {
        const status = source.status()
        if (status.confirmedAt !== null || kept.restoredAt === null) return status
        return { ...status, confirmedAt: kept.restoredAt, restored: true }
      },
      close: () => {
        kept.endedAt ??= this.#now()
        return source.close()
      }
    }
  }

  /** From now on the file is written; who only looks leaves it as it is. */
  attend(): void {
    if (this.#writes) return
    this.#writes = true
    this.#writing = tryToWrite(this.#path).catch((error) => this.#failed(error))
    this.#write(this.#refresh)
  }

  /** Writes what is known now, so that its age counts from here. */
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

  #restore(entry: Entry | undefined, kept: Kept): readonly InstanceSpec[] | undefined {
    if (entry?.identity !== kept.identity) return undefined
    // A clock that was set back is no proof of youth, but age cannot be negative.
    const age = Math.max(0, this.#wall() - entry.confirmedAt)
    if (this.#found.length === 0) queueMicrotask(() => this.#tell())
    this.#found.push({ instances: entry.instances.length, age })
    if (age > this.#maxAge) return undefined
    kept.instances = Object.freeze(entry.instances)
    kept.restoredAt = this.#now() - age
    return kept.instances
  }

  /** One line for all services that start together. */
  #tell(): void {
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

  /** After that time, or sooner if that is planned. */
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
      // Instances that no source has confirmed since the file was read are in it already.
      if (![...this.#kept.values()].some(({ source }) => source.status().confirmedAt !== null)) return
      await writeEntries(this.#path, this.#current()).then(
        () => this.#written(),
        (error) => this.#failed(error)
      )
    })
  }

  *#current(): Generator<Entry> {
    for (const [service, kept] of this.#kept) {
      const { identity, source, instances, restoredAt, endedAt } = kept
      // One that ends with the gateway is kept for the next start; one that the configuration no longer has is forgotten.
      if (endedAt !== null && this.#now() - endedAt > this.#timing.refresh) {
        this.#kept.delete(service)
        continue
      }
      const confirmedAt = source.status().confirmedAt ?? restoredAt
      // No instance is as good as no entry, and not to be taken for an answer.
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

  /** Of each service, whether it lives on what was kept. */
  restored(): [service: string, restored: boolean][] {
    const lives = ({ restoredAt, endedAt, source }: Kept) =>
      restoredAt !== null && endedAt === null && source.status().confirmedAt === null
    return [...this.#kept].map(([service, kept]) => [service, lives(kept)])
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
