/** Manifests of persisted queries: Apollo's format, or a mapping of ids to queries as Relay's compiler writes it. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isObject } from '../../strict-json.ts'

export const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** The queries of a manifest. */
export interface Manifest {
  readonly byId: ReadonlyMap<string, string>
  /** SHA-256 of all queries, for clients that send the text. */
  readonly hashes: ReadonlySet<string>
}

/** Reads a file, or all `*.json` of a folder. Throws an error that names the file. */
export function readManifest(path: string): Manifest {
  const byId = new Map<string, string>()
  for (const file of filesAt(path)) {
    for (const [id, query] of entriesOf(file)) {
      const other = byId.get(id)
      if (other !== undefined && other !== query) throw new Error(`${file}: the id "${id}" already has another query`)
      byId.set(id, query)
    }
  }
  return { byId, hashes: new Set([...byId.values()].map(sha256)) }
}

function filesAt(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path]
    const names = readdirSync(path).filter((name) => name.endsWith('.json'))
    return names.sort().map((name) => join(path, name))
  } catch (cause) {
    throw new Error(`${path}: cannot be read (${(cause as NodeJS.ErrnoException).code})`, { cause })
  }
}

function entriesOf(file: string): [id: string, query: string][] {
  const expected =
    '{ "format": "apollo-persisted-query-manifest", "version": 1, "operations": [{ "id", "body" }] } or { ID: QUERY }'
  const content = parsed(file)
  if (!isObject(content)) throw new Error(`${file}: expected ${expected}`)
  const { format, operations } = content
  const entries: [unknown, unknown][] =
    format === 'apollo-persisted-query-manifest' && Array.isArray(operations)
      ? operations.map(idAndBody)
      : Object.entries(content)
  return entries.map(([id, query], index) => {
    if (typeof id !== 'string' || typeof query !== 'string' || query.trim() === '') {
      throw new Error(`${file}: entry ${index + 1} has no id or no query; expected ${expected}`)
    }
    return [id, query]
  })
}

function idAndBody(operation: unknown): [unknown, unknown] {
  if (!isObject(operation)) return [null, null]
  const { id, body } = operation
  return [id, body]
}

function parsed(file: string): unknown {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new Error(`${file}: cannot be read (${(cause as NodeJS.ErrnoException).code})`, { cause })
  }
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Error(`${file}: not JSON`, { cause })
  }
}
