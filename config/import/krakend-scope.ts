/** Place in which a part of KrakenD's `extra_config` is converted. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** `edge` is that of `route`, which is null for all endpoints, or a call of a composed route. */
export type Convert = (config: Foreign, edge: Settings, draft: Draft, route: Settings | null) => void
