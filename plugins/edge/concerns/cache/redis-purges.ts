/** The purges of a cluster, as a node knows them. */
import { epochLength } from './redis-scripts.ts'
import type { Purge } from './store.ts'
import { criteria, isMeant } from './store.ts'
import type { StoredHead } from './stored.ts'

/** Returns the criteria of a purge as text, equal for equal criteria; empty for a purge of everything. */
export function purgeText(purge: Purge): string {
  const given = criteria.flatMap((name) => (purge[name] === undefined ? [] : [[name, purge[name]]]))
  return given.length === 0 ? '' : JSON.stringify(Object.fromEntries(given))
}

export class KnownPurges {
  /** Epoch and number of the last purge; empty before the first response of Redis. */
  #version = ''
  #floor = ''
  #purges: { readonly sequence: string; readonly purge: Purge }[] = []

  get version(): string {
    return this.#version
  }

  /** Takes over the fields of the hash, if its version differs from the known one. */
  update(version: string, fields: readonly Buffer[]): void {
    if (version === this.#version) return
    this.#version = version
    this.#floor = ''
    this.#purges = []
    const last = version.slice(epochLength)
    for (let at = 0; at + 1 < fields.length; at += 2) {
      const name = fields[at]!.toString()
      const value = fields[at + 1]!.toString('latin1')
      if (name === 'floor') this.#floor = value
      else if (name.startsWith('c') && value <= last)
        this.#purges.push({ sequence: value, purge: parsed(name.slice(1)) })
    }
  }

  /** Returns whether a response of the current epoch was purged. `sequence`: number of the last purge before its fetch. */
  includes(stored: StoredHead, sequence: string): boolean {
    if (sequence < this.#floor) return true
    if (sequence === this.#version.slice(epochLength)) return false
    return this.#purges.some((each) => each.sequence > sequence && isMeant(stored, each.purge))
  }
}

/** A purge that cannot be read is one of everything. */
function parsed(text: string): Purge {
  try {
    const purge = JSON.parse(text) as Record<string, unknown>
    if (Object.entries(purge).every(([name, value]) => isCriterion(name) && typeof value === 'string')) return purge
  } catch {}
  return {}
}

const isCriterion = (name: string) => criteria.some((each) => each === name)
