/** Commands of concerns, and what they print when the gateway has started. */
import type { Config, RouteConfig } from '../../config/schema.ts'

/** A running gateway, from the view of its operator. */
export interface Started {
  readonly config: Config
  /** Shell command by which the operator runs another command on the same configuration. */
  readonly command: string
  /** Returns curl's options and URL for an example GET request to a route; null if a plain request does not reach the route. */
  readonly urlOf: (route: RouteConfig) => string | null
  /** Returns whether a route requires no credentials. */
  readonly isOpen: (route: RouteConfig) => boolean
}

/** Option of a command, for `parseArgs`. */
type CommandOption =
  | { readonly type: 'string'; readonly default: string }
  | { readonly type: 'boolean'; readonly default: boolean }

/** A command that a concern adds to the command line. */
export interface EdgeCommand {
  readonly name: string
  /** Lines of the help text. */
  readonly usage: string
  /** Options of the command, for `parseArgs`. */
  readonly options: Readonly<Record<string, CommandOption>>
  /** Returns the text to print. `load` loads the configuration that the command line names. */
  run(
    load: () => Promise<Config>,
    argument: string | undefined,
    values: Readonly<Record<string, unknown>>
  ): Promise<string>
}
