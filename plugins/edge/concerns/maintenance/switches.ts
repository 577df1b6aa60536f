/** Switches of the maintenance mode that operators set at run time. They outlive a configuration. */

/** The routes that a switch concerns: one route, those of a group, or all. */
export type Scope = { readonly route: string } | { readonly group: string } | 'all'

/** A route of one configuration. */
export interface Switched {
  readonly route: string
  readonly group: string | undefined
  /** State that is in force in place of the configured one; null if the configuration decides. */
  state: boolean | null
}

export class Switches {
  #all: boolean | null = null
  /** Null: the configuration decides, whatever a wider switch says. */
  readonly #groups = new Map<string, boolean | null>()
  readonly #routes = new Map<string, boolean | null>()
  /** Routes of all configurations that still have requests. */
  readonly #switched = new Set<Switched>()

  /** Adds a route of a configuration. Its state follows the switches until it is removed. */
  add(route: string, group: string | undefined): Switched {
    const switched = { route, group, state: null }
    this.#switched.add(switched)
    this.#update(switched)
    return switched
  }

  remove(switched: Switched): void {
    this.#switched.delete(switched)
  }

  /**
   * Switches on, off, or with null back to the configuration. The last command wins: it replaces those for the single routes and
   * groups in its scope. `members` are the routes of the group.
   */
  set(scope: Scope, state: boolean | null, members: Iterable<string> = []): void {
    if (scope === 'all') {
      this.#all = state
      this.#groups.clear()
      this.#routes.clear()
    } else if ('group' in scope) {
      this.#groups.set(scope.group, state)
      for (const member of members) this.#routes.delete(member)
    } else this.#routes.set(scope.route, state)
    for (const switched of this.#switched) this.#update(switched)
  }

  /** Forgets routes and groups that the configuration in use does not have. */
  retain(routes: ReadonlySet<string>, groups: ReadonlySet<string>): void {
    for (const name of this.#routes.keys()) if (!routes.has(name)) this.#routes.delete(name)
    for (const name of this.#groups.keys()) if (!groups.has(name)) this.#groups.delete(name)
  }

  #update(switched: Switched): void {
    const { route, group } = switched
    const ofRoute = this.#routes.get(route)
    const ofGroup = group === undefined ? undefined : this.#groups.get(group)
    // Not `??`: null of a narrower switch wins.
    if (ofRoute !== undefined) switched.state = ofRoute
    else switched.state = ofGroup === undefined ? this.#all : ofGroup
  }
}
