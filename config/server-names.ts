/** A map from server names to values: exact names, and wildcards, which match one label (RFC 6125, 6.4.3). Pure. */
export class ServerNames<T> {
  readonly #exact = new Map<string, T>()
  /** Keyed by the part after `*.`. */
  readonly #wildcards = new Map<string, T>()

  /** Adds names in the form of `hostKey`. An existing name keeps its value, unless the new value `isBetter`. */
  add(names: readonly string[], value: T, isBetter: (value: T, than: T) => boolean = () => false): void {
    for (const name of names) {
      const [map, key] = name.startsWith('*.') ? [this.#wildcards, name.slice(2)] : [this.#exact, name]
      const before = map.get(key)
      if (before === undefined || isBetter(value, before)) map.set(key, value)
    }
  }

  /** Returns the value of a name: that of the exact name, else that of the matching wildcard. */
  find(name: string): T | undefined {
    const exact = this.#exact.get(name)
    if (exact !== undefined) return exact
    const dot = name.indexOf('.')
    return dot < 1 ? undefined : this.#wildcards.get(name.slice(dot + 1))
  }
}
