/**
 * The file that keeps instances over a restart: a line that says what it is, a line for each service, and a checksum
 * of all before it, so that neither half a file nor a damaged one is believed.
 */
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { InstanceSpec } from '../core/types.ts'

/** One service's instances, as they were last confirmed. */
export interface Entry {
  readonly service: string
  /** Says which question the instances answer: to another one they are no answer. */
  readonly identity: string
  /** By the clock on the wall, in milliseconds since 1970. */
  readonly confirmedAt: number
  readonly instances: readonly InstanceSpec[]
}

const FORMAT = { format: 'jingwei-discovery', version: 1 }
const BATCH = 64 * 1024

/** Line by line, so that the event loop is never held for more than a service's. */
function* linesOf(entries: Iterable<Entry>): Generator<string> {
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

/** Either the old file or the new one is there, whole, whenever the machine stops. */
export async function writeEntries(path: string, entries: Iterable<Entry>): Promise<void> {
  const temporary = temporaryOf(path)
  await rm(temporary, { force: true })
  try {
    // Exclusively: what lies there, such as somebody's link, is not written through.
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

/** Tries to write a file there; throws if that fails. */
export async function tryToWrite(path: string): Promise<void> {
  const temporary = temporaryOf(path)
  await rm(temporary, { force: true })
  await (await open(temporary, 'wx', 0o600)).close()
  await rm(temporary)
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === false) throw new Error(`${path} is not a file`)
}

const temporaryOf = (path: string) => `${path}.${process.pid}.tmp`

async function syncFolder(folder: string): Promise<void> {
  // Not every file system can; the file itself is safe by now.
  const handle = await open(folder).catch(() => null)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

/** Null where there is no file; throws if it is not to be believed. */
export function readEntries(path: string): Entry[] | null {
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
  return entries as Entry[]
}

function parsed(line: string): object {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null) return value
  } catch {}
  throw new Error('the file is damaged')
}
