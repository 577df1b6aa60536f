/** Persisted queries: those of a manifest, and those that clients register. */
import type { ByteLru } from '../../byte-lru.ts'
import { isObject, parseForCopy } from '../../strict-json.ts'
import type { Manifest } from './manifest.ts'
import { sha256 } from './manifest.ts'
import type { Operation } from './operations.ts'
import { idNames } from './operations.ts'
import { PersistedQueryMiss, Refusal } from './refusals.ts'

/** The query of an operation. */
export interface Resolved {
  readonly text: string
  /** True if the service must get another request than the client's: with the text, and without the id. */
  readonly isReplaced: boolean
  /** Key under which the query is registered once it has passed the limits; null if it is not. */
  readonly register: string | null
}

export interface PersistedSources {
  readonly manifest: Manifest | null
  readonly only: boolean
  readonly automatic: ByteLru<string> | null
}

/** Returns the query of an operation. Throws a refusal, or a `PersistedQueryMiss`. */
export function resolve({ query, hash, id }: Operation, sources: PersistedSources | null): Resolved {
  if (query !== null) {
    if (hash !== null && sources !== null && sha256(query) !== hash.toLowerCase()) {
      throw new Refusal('graphql_hash', 'The hash of the persisted query is not that of the query')
    }
    if (sources?.only && !sources.manifest?.hashes.has(sha256(query))) throw notPersisted()
    const register = sources?.automatic ? (hash?.toLowerCase() ?? null) : null
    return { text: query, isReplaced: sources !== null && (hash !== null || id !== null), register }
  }
  const name = hash ?? id
  if (name === null) throw new Refusal('graphql_parameters', 'The request has no query')
  if (sources === null) throw new PersistedQueryMiss('graphql_persisted_off')
  const { manifest, automatic } = sources
  const text = manifest?.byId.get(name) ?? manifest?.byId.get(name.replace(/^sha256:/, ''))
  const found = text ?? (hash === null ? undefined : automatic?.get(hash.toLowerCase()))
  if (found !== undefined) return { text: found, isReplaced: true, register: null }
  if (sources.only) throw notPersisted()
  throw new PersistedQueryMiss(automatic === null ? 'graphql_persisted_off' : 'graphql_persisted_missing')
}

const notPersisted = () => new Refusal('graphql_not_persisted', 'Only persisted queries are allowed')

/** Returns the body for the service: the client's, with the text of each query, and without ids. */
export function bodyWith(text: string, queries: readonly string[]): Buffer {
  const body = parseForCopy(text)
  const members = Array.isArray(body) ? body : [body]
  members.forEach((member: Record<string, unknown>, index) => {
    for (const name of idNames) delete member[name]
    const { extensions } = member
    Object.assign(member, { query: queries[index] }, isObject(extensions) && { extensions: withoutHash(extensions) })
  })
  return Buffer.from(JSON.stringify(body))
}

/** Returns the query string for the service. */
export function searchWith(params: URLSearchParams, query: string): URLSearchParams {
  const changed = new URLSearchParams(params)
  for (const name of idNames) changed.delete(name)
  changed.set('query', query)
  const text = params.get('extensions')
  const extensions = text ? withoutHash(parseForCopy(text) as object) : undefined
  if (extensions === undefined) changed.delete('extensions')
  else changed.set('extensions', JSON.stringify(extensions))
  return changed
}

/** Returns extensions without the persisted query; undefined if there are no others. */
function withoutHash(extensions: object): object | undefined {
  const { persistedQuery: _, ...others } = extensions as Record<string, unknown>
  return Object.keys(others).length === 0 ? undefined : others
}
