/** The command line: a command, its arguments, and options that the command uses. */
import { parseArgs } from 'node:util'
import { didYouMean } from '../../config/nearest.ts'

/** Option of a command, for `parseArgs`. */
type CommandOption =
  | { readonly type: 'string'; readonly default: string }
  | { readonly type: 'boolean'; readonly default: boolean }

/** Part of a command that says which options it takes. */
export interface TakesOptions {
  readonly name: string
  readonly options: Readonly<Record<string, CommandOption>>
}

/** Parsed options: those of every command, and those of concerns' commands. */
export interface Values {
  readonly [name: string]: unknown
  readonly config?: string
  readonly help?: boolean
  readonly version?: boolean
}

interface CommandLine {
  readonly positionals: readonly string[]
  readonly values: Values
}

/** A command line that does not fit the help text. */
export class UsageError extends Error {
  /** True if the help text says what to do; false if the message does. */
  readonly needsHelp: boolean

  constructor(message: string, needsHelp: boolean, options?: ErrorOptions) {
    super(message, options)
    this.needsHelp = needsHelp
  }
}

/** Options of every command. */
const common = {
  config: { type: 'string', short: 'c' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' }
} as const

/** Options of `explain`. */
const explained = {
  header: { type: 'string', short: 'H', multiple: true, default: [] as string[] },
  ip: { type: 'string' },
  consumer: { type: 'string' },
  claims: { type: 'string' },
  listener: { type: 'string' }
} as const

/** The gateway's own commands, with the maximum of positional arguments, including the name. */
const own: Readonly<Record<string, number>> = {
  start: 2,
  sidecar: 2,
  check: 2,
  routes: 2,
  explain: 4,
  schema: 2,
  init: 2,
  import: 3
}

/** Maximum for the commands of concerns. */
const mostOfConcern = 2

/** @throws {UsageError} for a command, option or argument that is unknown, or that would be ignored. */
export function parseCommandLine(argv: readonly string[], commands: readonly TakesOptions[]): CommandLine {
  const ofConcerns = Object.assign({}, ...commands.map(({ options }) => options)) as TakesOptions['options']
  // Without defaults: that of an option of another command would count as an option that was given.
  const types = Object.fromEntries(Object.entries(ofConcerns).map(([name, { type }]) => [name, { type }]))
  const options = { ...common, ...explained, ...types }
  const args = [...argv]
  const { tokens } = parseArgs({ args, options, allowPositionals: true, strict: false, tokens: true })
  const given = tokens.filter((token) => token.kind === 'option')
  for (const { name, rawName, index } of given) refuseUnknown(name, rawName, argv[index]!, Object.keys(options))
  const { positionals, values } = parsed(() => parseArgs({ args, options, allowPositionals: true }))
  if (values.help || values.version) return { positionals, values }
  const [command = 'start'] = positionals
  const names = [...Object.keys(own), ...commands.map(nameOf)]
  if (!names.includes(command)) refuseCommand(command, names)
  for (const { name, rawName } of given) {
    if (name in common) continue
    const takers = commands.filter((each) => name in each.options).map(nameOf)
    if (name in explained) takers.push('explain')
    if (!takers.includes(command)) {
      throw new UsageError(`${command} takes no option "${rawName}"; it is for ${takers.join(' and ')}`, false)
    }
  }
  const surplus = positionals[own[command] ?? mostOfConcern]
  if (surplus !== undefined) throw new UsageError(`${command}: unexpected argument "${surplus}"`, false)
  if (values.config !== undefined && command in own) refuseSecondFile(command, positionals, values.config)
  const { options: taken = {} } = commands.find(({ name }) => name === command) ?? {}
  const defaults = Object.fromEntries(Object.entries(taken).map(([name, option]) => [name, option.default]))
  return { positionals, values: { ...defaults, ...values } }
}

/** Throws for a configuration of `--config` that would be ignored. */
function refuseSecondFile(command: string, positionals: readonly string[], config: string): void {
  if (command === 'init' || command === 'import')
    throw new UsageError(`${command} takes no option "--config": it writes a configuration`, false)
  // With fewer arguments, `explain` says what it takes.
  const file = positionals[command === 'explain' ? 3 : 1] && positionals[1]
  if (file === undefined) return
  throw new UsageError(`${command}: two configurations, "${file}" and --config "${config}"; name one of them`, false)
}

const nameOf = ({ name }: TakesOptions) => name

function refuseCommand(command: string, names: readonly string[]): never {
  const isFile = /\.ya?ml$/.test(command)
  const advice = isFile ? `; did you mean "start ${command}"?` : didYouMean(command, names)
  throw new UsageError(`unknown command "${command}"${advice}`, advice === '')
}

/** Throws for an unknown option; also for `-config`, which is `-c` with the value `onfig`. */
function refuseUnknown(name: string, rawName: string, argument: string, known: readonly string[]): void {
  const isShort = !rawName.startsWith('--')
  const [written = ''] = isShort ? argument.split('=') : [rawName]
  const isMeantLong = isShort && known.includes(written.slice(1))
  if (isMeantLong || !known.includes(name)) {
    const advice = isMeantLong
      ? `; did you mean "-${written}"?`
      : didYouMean(
          written,
          known.map((each) => `--${each}`)
        )
    throw new UsageError(`unknown option "${written}"${advice}`, advice === '')
  }
}

/** Parses options that are known. The messages of `parseArgs` about their values name the option. */
function parsed<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    throw new UsageError((error as Error).message, true, { cause: error })
  }
}
