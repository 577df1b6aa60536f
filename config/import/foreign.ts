/** Reader of other gateways' files, whose content is untyped. */

/** A part of the file that is not what its gateway would accept. */
export class ImportFault extends Error {}

type Fields = Readonly<Record<string, unknown>>

const isMapping = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Returns the member of a table that a name of the file has; names of prototypes, such as "constructor", have none. */
export const member = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined

/** A mapping of the file. It remembers which keys were read, so that the others can be reported. */
export class Foreign {
  /** Place in the file: `services[0].routes[1]`. */
  readonly where: string
  readonly #fields: Fields
  readonly #read = new Set<string>()
  /** Mappings by their places: one that is read twice is the same. */
  readonly #inner = new Map<string, Foreign>()

  /** Throws {ImportFault} for another value than a mapping. */
  constructor(value: unknown, where: string) {
    if (!isMapping(value)) throw new ImportFault(`${where || 'the file'}: expected a mapping, found ${kindOf(value)}`)
    this.#fields = value
    this.where = where
  }

  /** All values, as they are. */
  get all(): Fields {
    return this.#fields
  }

  get keys(): string[] {
    return Object.keys(this.#fields)
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#fields, key)
  }

  /** Returns a value as it is; undefined also for null. */
  value(key: string): unknown {
    this.#read.add(key)
    return Object.hasOwn(this.#fields, key) ? (this.#fields[key] ?? undefined) : undefined
  }

  /** Returns a text, or a number or boolean as a text. */
  text(key: string): string | undefined {
    const value = this.value(key)
    if (value === undefined) return undefined
    if (typeof value === 'object') throw this.#fault(key, 'a text', value)
    return String(value)
  }

  number(key: string): number | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    const number = Number(text)
    if (text.trim() === '' || !Number.isFinite(number)) throw this.#fault(key, 'a number', text)
    return number
  }

  flag(key: string): boolean | undefined {
    const text = this.text(key)
    // YAML 1.1 has more spellings.
    return text === undefined ? undefined : /^(?:true|yes|on)$/i.test(text)
  }

  /** Returns a list of texts; a single text counts as a list of one. */
  texts(key: string): string[] {
    const value = this.value(key)
    if (value === undefined) return []
    return (Array.isArray(value) ? (value as unknown[]) : [value]).map((each) => {
      if (typeof each === 'object') throw this.#fault(key, 'a list of texts', each)
      return String(each)
    })
  }

  /** Returns a mapping; null stands for an empty one, as in `cors:`. */
  mapOrEmpty(key: string): Foreign {
    return this.map(key) ?? this.#add({}, this.#place(key))
  }

  map(key: string): Foreign | undefined {
    const value = this.value(key)
    return value === undefined ? undefined : this.#add(value, this.#place(key))
  }

  maps(key: string): Foreign[] {
    const value = this.value(key)
    if (value === undefined) return []
    if (!Array.isArray(value)) throw this.#fault(key, 'a list', value)
    return (value as unknown[]).map((each, index) => this.#add(each, `${this.#place(key)}[${index}]`))
  }

  /** Returns the members of a mapping of mappings. */
  named(key: string): [name: string, fields: Foreign][] {
    const outer = this.map(key)
    if (outer === undefined) return []
    return outer.keys.map((name) => [name, outer.mapOrEmpty(name)])
  }

  isUnread(key: string): boolean {
    return this.has(key) && !this.#read.has(key)
  }

  /** True for `enabled: false`. All of it counts as read then. */
  isOff(): boolean {
    if (this.flag('enabled') !== false) return false
    this.skip(...this.keys)
    return true
  }

  /** Marks keys as read that need no counterpart. */
  skip(...keys: string[]): void {
    for (const key of keys) this.#read.add(key)
  }

  /** Returns the places of all values that were not read. */
  unread(): string[] {
    const own = this.keys.filter((key) => !this.#read.has(key) && !isEmpty(this.#fields[key]))
    return [...own.map((key) => this.#place(key)), ...[...this.#inner.values()].flatMap((inner) => inner.unread())]
  }

  #add(value: unknown, where: string): Foreign {
    const inner = this.#inner.get(where) ?? new Foreign(value, where)
    this.#inner.set(where, inner)
    return inner
  }

  #place(key: string): string {
    return this.where === '' ? key : `${this.where}.${key}`
  }

  #fault(key: string, expected: string, found: unknown): ImportFault {
    return new ImportFault(`${this.#place(key)}: expected ${expected}, found ${kindOf(found)}`)
  }
}

const isEmpty = (value: unknown): boolean =>
  value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0)

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' ? 'a mapping' : `"${String(value).slice(0, 60)}"`
}
