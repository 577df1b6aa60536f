import type { FastifyBaseLogger } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import { ConfigError, line } from '../../config/faults.ts'
import type { Config } from '../../config/schema.ts'
import { asError } from '../thrown.ts'
import type { Outcome } from './host.ts'

/** Logs the result of a reload. `config`: in use after it; `cause`: the trigger; `thrown`: the error that stopped it. */
export function logOutcome(
  log: FastifyBaseLogger,
  config: Config,
  cause: string,
  outcome: Outcome,
  thrown: unknown
): void {
  const { applied, hash, faults, warnings, waitingFor, durationMs } = outcome
  for (const warning of warnings) log.warn({ cause, ...placeOf(warning) }, `configuration: ${line(warning)}`)
  const err = errorOf(thrown)
  // The error belongs to the fault whose message ends with the error's message.
  const failed = faults.find(({ message }) => err !== null && message.endsWith(err.message)) ?? faults[0]
  for (const fault of faults) {
    const fields = { cause, ...placeOf(fault), ...(err !== null && fault === failed && { err }) }
    log.error(fields, `configuration not reloaded: ${line(fault)}`)
  }
  if (!applied) return
  const counts = { routes: config.routes.length, services: Object.keys(config.services).length }
  log.info({ cause, file: config.file, hash, ...counts, durationMs }, 'configuration reloaded')
  if (waitingFor.length === 0) return
  log.warn(
    { cause, waitingFor },
    'services of the new configuration have no instance list yet: their routes respond with 503'
  )
}

/** Returns the fields of a fault without its message, which is that of the log line. */
const placeOf = ({ message: _, ...place }: Fault) => place

/** Returns the error that code such as a plugin has thrown; null for a fault of the file. */
function errorOf(thrown: unknown): Error | null {
  const error = thrown instanceof ConfigError ? thrown.cause : thrown
  return error === undefined || error === null ? null : asError(error)
}

/** Returns the faults that stopped a reload. */
export function faultsOf(thrown: unknown, file: string): readonly Fault[] {
  if (thrown instanceof ConfigError) return thrown.faults
  return [{ file, line: 0, column: 0, path: '', message: asError(thrown).message }]
}
