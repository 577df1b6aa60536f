/** Faults of a configuration and settings without effect, with their positions. */
import { maskCredentials } from './credentials.ts'

export interface Fault {
  readonly file: string
  /** From 1; 0 when it is about the file as a whole. */
  readonly line: number
  readonly column: number
  /** `routes[0].edge.jwt.algorithms[1]`; empty for the document itself. */
  readonly path: string
  readonly message: string
}

export class ConfigError extends Error {
  readonly faults: readonly Fault[]

  constructor(file: string, faults: readonly Fault[], options?: ErrorOptions) {
    const sum = `${faults.length} ${faults.length === 1 ? 'fault' : 'faults'} in ${file}; nothing was started`
    super([...faults.map(line), sum].join('\n'), options)
    this.name = 'ConfigError'
    this.faults = faults
  }
}

/** `file:line:column: key: message` */
export function line(fault: Fault): string {
  const where = fault.line === 0 ? fault.file : `${fault.file}:${fault.line}:${fault.column}`
  return fault.path === '' ? `${where}: ${fault.message}` : `${where}: ${fault.path}: ${fault.message}`
}

/** A position in the file, from 1. */
export interface Position {
  readonly line: number
  readonly column: number
}

/** Position of a value in the file. */
export interface Place extends Position {
  /** Of its key, in a mapping. */
  readonly key?: Position | undefined
  readonly isList: boolean
  /** A scalar as it was written. */
  readonly text?: string | undefined
  /** The text it was written as, if variables were put into it. */
  readonly from?: string | undefined
}

/** Returns the place of the value at a pointer, or undefined if the file has none. */
export type Locate = (at: string) => Place | undefined

/** A JSON pointer, as the validator names places. */
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

const parentOf = (at: string) => at.slice(0, Math.max(0, at.lastIndexOf('/')))

/** Gathers the faults of one file, so that all of them are told at once. */
export class Report {
  readonly #file: string
  #locate: Locate = () => undefined
  readonly #faults = new Map<string, Fault>()
  readonly #warnings = new Map<string, Fault>()
  readonly #bad = new Set<string>()
  /** Mappings and lists that hold a value with a fault, however deep. */
  readonly #holders = new Set<string>()
  /** Mappings with a key that no one knows. */
  readonly #misspelt = new Set<string>()

  constructor(file: string) {
    this.#file = file
  }

  /** Sets how places are found. They are not recorded, since few are ever asked for. */
  locateBy(locate: Locate): void {
    this.#locate = locate
  }

  /** The place of a value, or undefined for one that the file does not have. */
  at(at: string): Place | undefined {
    return this.#locate(at)
  }

  /** A fault of the value at a pointer; one that isn't in the file is told at what should hold it. */
  fault(at: string, message: string, where: 'key' | 'value' | Position = 'value'): void {
    const { line, column } = typeof where === 'object' ? where : this.#nearest(at, where)
    this.#spoil(at)
    this.add(line, column, this.pathOf(at), message)
  }

  /** Something that has no effect, or not the one that it seems to have; the gateway starts all the same. */
  warn(at: string, message: string, where: 'key' | 'value' = 'value'): void {
    const { line, column } = this.#nearest(at, where)
    this.#warnings.set(`${line}:${column}: ${message}`, {
      file: this.#file,
      line,
      column,
      path: this.pathOf(at),
      message: maskCredentials(message)
    })
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

  /** Returns whether a key that a mapping seems to lack may be one that is misspelt. */
  unknownKeyIn(holder: string): boolean {
    return this.#misspelt.has(holder)
  }

  /** A key that its holder must have. Told at the holder. */
  missing(holder: string, key: string): void {
    this.fault(holder, `missing key "${key}"`)
    // The holder can still be looked into; only what it lacks can't.
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

  /** An alias reads a fault's place twice; it is told once. */
  add(line: number, column: number, path: string, message: string): void {
    const id = `${line}:${column}: ${message}`
    if (this.#faults.has(id)) return
    this.#faults.set(id, { file: this.#file, line, column, path, message: maskCredentials(message) })
  }

  /** Returns whether the value at a pointer may be read: neither it nor a value that holds it has a fault. */
  usable(at: string): boolean {
    if (this.#bad.size === 0) return true
    for (let p = at; ; p = parentOf(p)) {
      if (this.#bad.has(p)) return false
      if (p === '') return true
    }
  }

  /** Usable, and so is all that it holds. */
  sound(at: string): boolean {
    return this.#bad.size === 0 || (this.usable(at) && !this.#holders.has(at))
  }

  /** `cause` is the error that a module of a plugin threw, if one did. */
  throwIfAny(cause?: unknown): void {
    if (this.#faults.size === 0) return
    throw new ConfigError(this.#file, this.faults, cause === undefined ? undefined : { cause })
  }

  get faults(): readonly Fault[] {
    return inOrder(this.#faults)
  }

  /** A JSON pointer as people write it: `routes[0].edge`. */
  pathOf(at: string): string {
    let text = ''
    let holder = ''
    for (const segment of segmentsOf(at)) {
      if (this.at(holder)?.isList === true) text += `[${segment}]`
      else if (/^[\w-]+$/.test(segment)) text += text === '' ? segment : `.${segment}`
      else text += `[${JSON.stringify(segment)}]`
      holder = pointer(holder, segment)
    }
    return text
  }
}
