/** Faults and warnings of a configuration, with their positions. */
import { maskCredentials } from './credentials.ts'

export interface Fault {
  readonly file: string
  /** Line from 1; 0 for a fault of the whole file. */
  readonly line: number
  readonly column: number
  /** `routes[0].edge.jwt.algorithms[1]`; empty for the document itself. */
  readonly path: string
  readonly message: string
}

export class ConfigError extends Error {
  readonly faults: readonly Fault[]

  /** `summary` is the last line of the message. */
  constructor(file: string, faults: readonly Fault[], options?: ErrorOptions & { readonly summary?: string }) {
    super([...faults.map(line), options?.summary ?? `${sumOf(faults, file)}; nothing was started`].join('\n'), options)
    this.name = 'ConfigError'
    this.faults = faults
  }
}

const sumOf = ({ length }: readonly Fault[], file: string) =>
  `${length} ${length === 1 ? 'fault' : 'faults'} in ${file}`

/** `file:line:column: key: message` */
export function line(fault: Fault): string {
  const where = fault.line === 0 ? fault.file : `${fault.file}:${fault.line}:${fault.column}`
  return fault.path === '' ? `${where}: ${fault.message}` : `${where}: ${fault.path}: ${fault.message}`
}

/** A position in the file, from 1. */
export interface Position {
  /** 0 if its source has no lines. */
  readonly line: number
  readonly column: number
  /** Name of the source, if that is not the file of the configuration. */
  readonly file?: string | undefined
}

/** Position of a value in the file. */
export interface Place extends Position {
  /** Position of its key, in a mapping. */
  readonly key?: Position | undefined
  readonly isList: boolean
  /** A scalar as it was written. */
  readonly text?: string | undefined
  /** The text before substitution, if it contains variables. */
  readonly from?: string | undefined
}

/** Returns the place of the value at a pointer, or undefined if the file has none. */
type Locate = (at: string) => Place | undefined

/** Builds a JSON pointer, by which the validator refers to values. */
export function pointer(base: string, ...segments: (string | number)[]): string {
  return segments.reduce<string>((at, segment) => `${at}/${escaped(segment)}`, base)
}

function escaped(segment: string | number): string | number {
  if (typeof segment === 'number' || !/[~/]/.test(segment)) return segment
  return segment.replaceAll('~', '~0').replaceAll('/', '~1')
}

export function segmentsOf(at: string): string[] {
  const parts = at.split('/').slice(1)
  if (!at.includes('~')) return parts
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

const inOrder = (faults: ReadonlyMap<string, Fault>) =>
  [...faults.values()].sort((a, b) => a.line - b.line || a.column - b.column)

/** Places in a source without lines are told apart by their paths. */
const idOf = (line: number, column: number, path: string, message: string) =>
  `${line}:${column}:${line === 0 ? path : ''} ${message}`

const parentOf = (at: string) => at.slice(0, Math.max(0, at.lastIndexOf('/')))

/** Collects the faults and warnings of one file, so that all are reported at once. */
export class Report {
  readonly #file: string
  readonly #isInUse: boolean
  #locate: Locate = () => undefined
  #origins: ReadonlyMap<string, string> = new Map()
  readonly #faults = new Map<string, Fault>()
  readonly #warnings = new Map<string, Fault>()
  readonly #bad = new Set<string>()
  /** Mappings and lists that contain a value with a fault, at any depth. */
  readonly #holders = new Set<string>()
  /** Mappings with an unknown key. */
  readonly #misspelt = new Set<string>()

  /** `isInUse`: the text is read while the process runs, so that its faults end nothing. */
  constructor(file: string, { isInUse = false } = {}) {
    this.#file = file
    this.#isInUse = isInUse
  }

  /** Sets the function that finds places. Places are computed on demand, since few are needed. */
  locateBy(locate: Locate): void {
    this.#locate = locate
  }

  /** Adds a source whose values have replaced some of the file: `locate` gets the function that finds places in the file. */
  amend(locate: (inFile: Locate) => Locate): void {
    this.#locate = locate(this.#locate)
  }

  /** Sets the places of values that are not in the file themselves, but were copied from other ones, by pointer. */
  inherit(origins: ReadonlyMap<string, string>): void {
    this.#origins = origins
  }

  /** Returns the pointer to the value in the file of which a value, or one of its holders, is a copy. */
  #originOf(at: string): string {
    if (this.#origins.size === 0) return at
    for (let holder = at; holder !== ''; holder = parentOf(holder)) {
      const origin = this.#origins.get(holder)
      if (origin !== undefined) return origin + at.slice(holder.length)
    }
    return at
  }

  /** Returns the place of a value; undefined if the file does not have it. */
  at(at: string): Place | undefined {
    return this.#locate(this.#originOf(at))
  }

  /** Reports a fault of the value at a pointer. If the value is missing, the position is that of its parent. */
  fault(at: string, message: string, where: 'key' | 'value' | Position = 'value'): void {
    const { line, column, file } = typeof where === 'object' ? where : this.#nearest(at, where)
    this.#spoil(at)
    this.add(line, column, this.pathOf(at), message, file)
  }

  /** Reports a warning: a setting without effect, or with another effect than it seems. The gateway starts. */
  warn(at: string, message: string, where: 'key' | 'value' = 'value'): void {
    const { line, column, file = this.#file } = this.#nearest(at, where)
    const path = this.pathOf(at)
    this.#warnings.set(idOf(line, column, path, message), {
      file,
      line,
      column,
      path,
      message: maskCredentials(message)
    })
  }

  /** Adds the faults and warnings of another file that the file names. */
  adopt(other: Report): void {
    for (const { line, column, path, message, file } of other.faults) this.add(line, column, path, message, file)
    for (const warning of other.warnings) {
      const { file, line, column, path, message } = warning
      this.#warnings.set(`${file} ${idOf(line, column, path, message)}`, warning)
    }
  }

  get warnings(): readonly Fault[] {
    return inOrder(this.#warnings)
  }

  #nearest(at: string, where: 'key' | 'value'): Position {
    let place = this.at(at)
    for (let holder = at; place === undefined && holder !== ''; place = this.at(holder)) holder = parentOf(holder)
    return (where === 'key' ? place?.key : undefined) ?? place ?? { line: 1, column: 1 }
  }

  unknownKey(holder: string, key: string, advice: string): void {
    this.fault(pointer(holder, key), `unknown key${advice}`, 'key')
    this.#misspelt.add(holder)
  }

  /** Reports a key that this configuration cannot have. The mapping may lack another key because of it. */
  excludedKey(holder: string, key: string, message: string): void {
    this.fault(pointer(holder, key), message, 'key')
    this.#misspelt.add(holder)
  }

  /** Returns whether a mapping has an unknown or excluded key, so that no key should be reported as missing. */
  unknownKeyIn(holder: string): boolean {
    return this.#misspelt.has(holder)
  }

  /** Reports that a mapping lacks a required key, at the position of the mapping. */
  missing(holder: string, key: string): void {
    this.fault(holder, `missing key "${key}"`)
    // The mapping itself stays usable; only the missing key is marked.
    this.#bad.delete(holder)
    this.#spoil(pointer(holder, key))
  }

  #spoil(at: string): void {
    this.#bad.add(at)
    for (let holder = at; holder !== ''; ) {
      holder = parentOf(holder)
      if (this.#holders.has(holder)) return
      this.#holders.add(holder)
    }
  }

  /** Adds a fault, once per position: with a YAML alias, the same place is read several times. */
  add(line: number, column: number, path: string, message: string, file = this.#file): void {
    const id = idOf(line, column, path, message)
    if (this.#faults.has(id)) return
    this.#faults.set(id, { file, line, column, path, message: maskCredentials(message) })
  }

  /** Returns where a value is, for the message of another fault: `on line 3`. */
  where(at: string): string {
    const { line, file } = this.at(at) ?? { line: 1 }
    return file === undefined ? `on line ${line}` : `in ${file}`
  }

  /** Returns whether the value at a pointer can be read: neither the value nor a parent has a fault. */
  usable(at: string): boolean {
    if (this.#bad.size === 0) return true
    for (let p = at; ; p = parentOf(p)) {
      if (this.#bad.has(p)) return false
      if (p === '') return true
    }
  }

  /** Returns whether a value is usable and everything within it, too. */
  sound(at: string): boolean {
    return this.#bad.size === 0 || (this.usable(at) && !this.#holders.has(at))
  }

  /** Throws a `ConfigError` if there are faults. `cause`: the error that a plugin's module threw, if any. */
  throwIfAny(cause?: unknown): void {
    if (this.#faults.size === 0) return
    const summary = this.#isInUse && { summary: `${sumOf(this.faults, this.#file)}; none of it is used` }
    throw new ConfigError(this.#file, this.faults, { ...(cause !== undefined && { cause }), ...summary })
  }

  get faults(): readonly Fault[] {
    return inOrder(this.#faults)
  }

  /** Formats a JSON pointer for messages: `routes[0].edge`. */
  pathOf(at: string): string {
    let text = ''
    let holder = ''
    for (const segment of segmentsOf(this.#originOf(at))) {
      const place = this.at(holder)
      // A list that the file does not have here, such as an inherited one, has numbers as its keys, too.
      const isIndex = place === undefined ? /^\d+$/.test(segment) : place.isList === true
      if (isIndex) text += `[${segment}]`
      else if (/^[\w-]+$/.test(segment)) text += text === '' ? segment : `.${segment}`
      else text += `[${JSON.stringify(segment)}]`
      holder = pointer(holder, segment)
    }
    return text
  }
}
