/** Files with schemas, and the references between them: `#/…` within a file, `./other.yaml#/…` to local files. */
import { readFileSync, statSync } from 'node:fs'
import { dirname, isAbsolute, resolve } from 'node:path'
import type * as Yaml from 'js-yaml'
import { segmentsOf } from '../../../../config/faults.ts'
import { onFirstUse } from '../../../on-first-use.ts'

const yaml = onFirstUse<Pick<typeof Yaml, 'load'>>('js-yaml')

/** A parsed file; for schemas of the configuration itself, the file is that of the configuration. */
export interface Source {
  readonly file: string
  readonly root: unknown
}

/** A value in a file. */
export interface Place {
  readonly source: Source
  readonly pointer: string
}

/** A fault of a file, at a pointer. */
export class SchemaFault extends Error {
  readonly place: Place
  /** `minor`: the rest of the schema can be used without the keyword; `hint`: the schema is valid, but may be misspelt. */
  readonly severity: 'fault' | 'minor' | 'hint'

  constructor(place: Place, message: string, severity: 'fault' | 'minor' | 'hint' = 'fault') {
    super(message)
    this.place = place
    this.severity = severity
  }
}

/** Most bytes of all files that a document consists of. */
const largestFiles = 64 * 1024 * 1024

/** The files of one document, each read once. */
export class Sources {
  readonly #files = new Map<string, Source>()
  #bytes = 0

  /** Names of the files. */
  get files(): string[] {
    return [...this.#files.keys()]
  }

  add(source: Source): Source {
    this.#files.set(source.file, source)
    return source
  }

  /** Reads a file. Throws an error that names it. */
  load(file: string): Source {
    const known = this.#files.get(file)
    if (known !== undefined) return known
    let text: string
    try {
      const stats = statSync(file)
      // A device may have no end, and a pipe nobody who writes to it.
      if (!stats.isFile()) throw Object.assign(new Error('not a file'), { code: 'not a file' })
      this.#bytes += stats.size
      if (this.#bytes > largestFiles) throw new Error(`${file}: the files of the document are larger than 64 MB`)
      text = readFileSync(file, 'utf8')
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === undefined) throw cause
      throw new Error(`${file}: cannot be read (${code})`, { cause })
    }
    return this.add({ file, root: parsed(file, text) })
  }

  /** Returns the place that a reference in a source refers to. Throws a `SchemaFault` at `from`. */
  resolve(reference: unknown, from: Place): Place {
    if (typeof reference !== 'string') throw new SchemaFault(from, '"$ref" must be a text')
    const hash = reference.indexOf('#')
    const path = hash === -1 ? reference : reference.slice(0, hash)
    const fragment = hash === -1 ? '' : reference.slice(hash + 1)
    if (/^[a-z][a-z0-9+.-]+:/i.test(path)) {
      throw new SchemaFault(from, `"$ref: ${reference}" is a URL: only local files can be referred to`)
    }
    let pointer: string
    let file: string
    try {
      pointer = decodeURIComponent(fragment)
      file = path === '' ? from.source.file : resolve(dirname(from.source.file), decodeURIComponent(path))
    } catch {
      throw new SchemaFault(from, `"$ref: ${reference}" is not a reference`)
    }
    if (pointer !== '' && !pointer.startsWith('/')) {
      throw new SchemaFault(from, `"$ref: ${reference}" refers to an anchor: write a JSON pointer`)
    }
    let source: Source
    try {
      source = path === '' ? from.source : this.load(isAbsolute(file) ? file : resolve(file))
    } catch (cause) {
      throw new SchemaFault(from, (cause as Error).message)
    }
    const place = { source, pointer }
    if (valueAt(place) === undefined) throw new SchemaFault(from, `"$ref: ${reference}" refers to nothing`)
    return place
  }
}

/** Most characters of a YAML file: it is parsed in one step, in which no request is served, in some 50 ms for each megabyte. */
const largestYaml = 16 * 1024 * 1024

function parsed(file: string, text: string): unknown {
  if (!file.endsWith('.json') && text.length > largestYaml) {
    throw new Error(`${file}: is larger than 16 MB: write it as JSON (.json), which is parsed several times as fast`)
  }
  try {
    return file.endsWith('.json') ? JSON.parse(text) : yaml().load(text)
  } catch (cause) {
    const { reason, mark, message } = cause as {
      reason?: string
      mark?: { line: number; column: number }
      message: string
    }
    const where = mark === undefined ? file : `${file}:${mark.line + 1}:${mark.column + 1}`
    throw new Error(`${where}: ${file.endsWith('.json') ? 'not JSON' : 'not YAML'}: ${reason ?? message}`, { cause })
  }
}

/** Returns the value at a place; undefined if there is none. */
export function valueAt({ source, pointer }: Place): unknown {
  let value = source.root
  for (const segment of segmentsOf(pointer)) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined
    value = Reflect.get(value, segment)
  }
  return value
}
