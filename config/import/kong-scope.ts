/** Place and context in which a plugin of Kong is converted. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

export interface KongContext {
  readonly draft: Draft
  /** Keys of the consumers' tokens, for the routes with the plugin jwt. */
  readonly issuers: Settings[]
}

/** Place of a plugin: a route, all routes, or a consumer. */
export interface Place {
  /** Settings of `edge` there. */
  readonly target: Settings
  /** Settings that a note is about. */
  readonly about: Settings | null
  /** Name of the limits that several routes share. */
  readonly name: string
  /** True if a consumer is known whatever the plugins. */
  readonly hasMethod: boolean
  /** True for the only route of a service. */
  readonly isAlone?: boolean
}

export interface Scope extends Place {
  readonly context: KongContext
  readonly authenticates: boolean
  /** True if the plugin is that of a service or of all routes, so that they share its limit. */
  readonly isShared: boolean
}

export type Convert = (config: Foreign, scope: Scope) => void
