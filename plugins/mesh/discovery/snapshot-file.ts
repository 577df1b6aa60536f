/**
 * File format of the discovery snapshot and of stored keys: a line with format and version, a line for each service or key, and a checksum of all
 * lines before it, so that an incomplete or damaged file is rejected.
 */
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { InstanceSpec } from '../core/types.ts'

/** One service's instances, as they were last confirmed. */
export interface Entry {
  readonly service: string
  /** Digest of the query whose result the instances are. */
  readonly identity: string
  /** Time of the last confirmation, in milliseconds since 1970. */
  readonly confirmedAt: number
  readonly instances: readonly InstanceSpec[]
}

const FORMAT = { format: 'jingwei-discovery', version: 1 }
const BATCH = 64 * 1024

/** Returns the lines one by one, so that serialization blocks the event loop for one service at most. */
function* linesOf(entries: Iterable<object>): Generator<string> {
  const hash = createHash('sha256')
  const line = (value: object) => {
    const text = `${JSON.stringify(value)}\n`
    hash.update(text)
    return text
  }
  yield line(FORMAT)
  for (const entry of entries) yield line(entry)
  yield `${JSON.stringify({ sha256: hash.digest('hex') })}\n`
}

/** Replaces the file atomically: after a crash there is either the old file or the new one, complete. */
export async function writeEntries(path: string, entries: Iterable<object>): Promise<void> {
  const temporary = temporaryOf(path)
  await rm(temporary, { force: true })
  try {
    // Create exclusively, so that a symbolic link at this path is not followed.
    const file = await open(temporary, 'wx', 0o600)
    try {
      let batch = ''
      for (const line of linesOf(entries)) {
        batch += line
        if (batch.length < BATCH) continue
        await file.appendFile(batch)
        batch = ''
      }
      await file.appendFile(batch)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw error
  }
  await syncFolder(dirname(path))
}

/** Tries to create a file at the path's folder; throws if that fails. */
export async function tryToWrite(path: string): Promise<void> {
  const temporary = temporaryOf(path)
  await rm(temporary, { force: true })
  await (await open(temporary, 'wx', 0o600)).close()
  await rm(temporary)
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === false) throw new Error(`${path} is not a file`)
}

const temporaryOf = (path: string) => `${path}.${process.pid}.tmp`

async function syncFolder(folder: string): Promise<void> {
  // Ignore errors: not every file system supports this, and the file itself is on disk already.
  const handle = await open(folder).catch(() => null)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

/** Reads the entries; null if there is no file. Throws if the file is damaged. */
export function readEntries<E extends object = Entry>(path: string): E[] | null {
  const found = statSync(path, { throwIfNoEntry: false })
  if (found === undefined) return null
  if (!found.isFile()) throw new Error(`${path} is not a file`)
  const text = readFileSync(path, 'utf8')
  const end = text.lastIndexOf('\n', text.length - 2) + 1
  const body = text.slice(0, end)
  const { sha256 } = parsed(text.slice(end)) as { sha256?: unknown }
  if (!text.endsWith('\n') || sha256 !== createHash('sha256').update(body).digest('hex')) {
    throw new Error(`the checksum of ${path} is wrong`)
  }
  const [first, ...entries] = body.split('\n').slice(0, -1).map(parsed)
  const { format, version } = (first ?? {}) as Partial<typeof FORMAT>
  if (format !== FORMAT.format || version !== FORMAT.version) throw new Error(`${path} has another format or version`)
  return entries as E[]
}

function parsed(line: string): object {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null) return value
  } catch {}
  throw new Error('the file is damaged')
}
