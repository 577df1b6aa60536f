/** Compiled documents, each compiled once for all routes with the same options. */
import { statSync } from 'node:fs'
import type { Steps } from '../../../time-slices.ts'
import type { Document, DocumentOptions } from './openapi.ts'
import { compileDocument } from './openapi.ts'
import type { ValidationOptions } from './options.ts'
import type { SchemaFault } from './sources.ts'

/** A document that was compiled lately, with the state of its files then. */
interface Recent {
  readonly document: WeakRef<Document>
  readonly stamps: readonly string[]
}

/** Documents that `check` has compiled are the ones that the gateway then uses, unless their files have changed since. */
const recent = new Map<string, Recent>()

const stampOf = (file: string): string => {
  try {
    const { mtimeMs, size, ino } = statSync(file)
    return `${file} ${mtimeMs} ${size} ${ino}`
  } catch {
    return `${file} is missing`
  }
}

/** Returns the options of a document on a route. */
export function documentOptions(options: ValidationOptions): DocumentOptions {
  const { openapi, basePath, unknownQuery, unread, responses } = options
  return { openapi: openapi!, basePath, unknownQuery, unread, hasResponses: responses !== false }
}

/** Returns a key that is equal for documents with the same rules. */
export function keyOf({ openapi, basePath, unknownQuery, unread, hasResponses }: DocumentOptions): string {
  return JSON.stringify([openapi, basePath, unknownQuery, unread, hasResponses])
}

/** Returns a compiled document; faults are reported. Throws an error if its file cannot be used at all. */
export function* documentOf(options: DocumentOptions, fault: (fault: SchemaFault) => void): Steps<Document> {
  const key = keyOf(options)
  for (const [other, { document }] of recent) if (document.deref() === undefined) recent.delete(other)
  const known = recent.get(key)
  const kept = known?.document.deref()
  if (kept !== undefined && known!.stamps.join() === kept.files.map(stampOf).join()) return kept
  let isFaulty = false
  const document = yield* compileDocument(options, (each) => {
    isFaulty = true
    fault(each)
  })
  if (!isFaulty) recent.set(key, { document: new WeakRef(document), stamps: document.files.map(stampOf) })
  return document
}
