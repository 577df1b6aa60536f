/** Maintenance mode of the routes of one configuration: as configured, as switched, and in force. */
import type { SwitchFile } from './switch-file.ts'
import type { Switched, Switches } from './switches.ts'

interface Settings {
  readonly enabled: boolean
  readonly isShadow: boolean
  readonly file: SwitchFile | null
}

/** A route, as the admin port shows it. */
export interface ShownState {
  readonly route: string
  readonly group?: string
  readonly on: boolean
  /** State without a switch; `file` if a file decides. */
  readonly configured: 'on' | 'off' | 'file'
  readonly switched: 'on' | 'off' | null
  readonly mode?: 'shadow'
}

/** The mode of one route. */
export class RouteState {
  readonly settings: Settings
  readonly switched: Switched

  constructor(settings: Settings, switched: Switched) {
    this.settings = settings
    this.switched = switched
  }

  get isOn(): boolean {
    const { enabled, file } = this.settings
    return this.switched.state ?? (enabled && (file === null || file.exists))
  }
}

export class RouteStates {
  readonly #switches: Switches
  readonly #states = new Map<string, RouteState>()

  constructor(switches: Switches) {
    this.#switches = switches
  }

  /** Returns the state of a route. A route has several Fastify routes, one for each path. */
  add(route: string, group: string | undefined, settings: Settings): RouteState {
    const known = this.#states.get(route)
    if (known !== undefined) return known
    const state = new RouteState(settings, this.#switches.add(route, group))
    this.#states.set(route, state)
    return state
  }

  close(): void {
    for (const { switched } of this.#states.values()) this.#switches.remove(switched)
  }

  has(route: string): boolean {
    return this.#states.has(route)
  }

  get names(): string[] {
    return [...this.#states.keys()]
  }

  /** Returns the switch of a route; null if the configuration decides. */
  switchOf(route: string | undefined): boolean | null {
    return route === undefined ? null : (this.#states.get(route)?.switched.state ?? null)
  }

  list(): ShownState[] {
    return [...this.#states].map(([route, state]) => {
      const { settings, switched, isOn } = state
      const { enabled, file, isShadow } = settings
      return {
        route,
        ...(switched.group !== undefined && { group: switched.group }),
        on: isOn,
        configured: enabled ? (file === null ? 'on' : 'file') : 'off',
        switched: switched.state === null ? null : switched.state ? 'on' : 'off',
        ...(isShadow && { mode: 'shadow' })
      }
    })
  }
}
