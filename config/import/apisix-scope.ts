/** Place and context in which a plugin of APISIX is converted. */
import type { Services } from './apisix-upstreams.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

export interface ApisixContext {
  readonly draft: Draft
  /** Keys of the consumers' tokens, for the routes with jwt-auth. */
  readonly issuers: Settings[]
  readonly services: Services
  /** Returns further routes for the one whose plugins are converted. */
  variants?: ((route: Settings) => Settings[]) | undefined
}

export interface Place {
  readonly edge: Settings
  /** The route; null for all routes. */
  readonly route: Settings | null
  /** Name of a limit that several routes share; null for that of a route. */
  readonly name: string | null
}

/** Notes another status of refusals than that of the gateway, and a text of them. */
export function noteRefusal(config: Foreign, status: number, note: (text: string) => void): void {
  const code = config.number('rejected_code')
  if (code !== undefined && code !== status)
    note(`${config.where}.rejected_code: refusals have status ${status} here, not ${code}`)
  if (config.has('rejected_msg')) note(`${config.where}.rejected_msg: not converted; write edge.errorPages`)
  config.skip('rejected_msg')
}

export type Convert = (config: Foreign, place: Place, context: ApisixContext) => void
