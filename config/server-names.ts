/** Values by server name: of exact names, and of wildcards, which stand for one label (RFC 6125, 6.4.3). Pure. */
export class ServerNames<T> {
  readonly #exact = new Map<string, T>()
  /** By what follows `*.`. */
  readonly #wildcards = new Map<string, T>()

  /** Adds names as `hostKey` has them. A name that is there already keeps its value, unless `isBetter` says otherwise. */
  add(names: readonly string[], value: T, isBetter: (value: T, than: T) => boolean = () => false): void {
    for (const name of names) {
      const [map, key] = name.startsWith('*.') ? [this.#wildcards, name.slice(2)] : [this.#exact, name]
      const before = map.get(key)
      if (before === undefined || isBetter(value, before)) map.set(key, value)
    }
  }

  /** Returns the value of a name: its own, else that of the wildcard beside it. */
  find(name: string): T | undefined {
    const exact = this.#exact.get(name)
    if (exact !== undefined) return exact
    const dot = name.indexOf('.')
    return dot < 1 ? undefined : this.#wildcards.get(name.slice(dot + 1))
  }
}
