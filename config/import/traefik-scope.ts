/** Place in which a middleware of Traefik is converted. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

export type Middlewares = ReadonlyMap<string, Foreign>

export interface Place {
  readonly route: Settings
  readonly edge: Settings
  readonly draft: Draft
  /** True if the file has lists of users that differ, so that a user of one may be none of another. */
  readonly hasSeveralLists: boolean
}

export type Convert = (options: Foreign, place: Place, name: string) => void
