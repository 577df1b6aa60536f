import type { FastifyBaseLogger } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import { ConfigError, line } from '../../config/faults.ts'
import type { Config } from '../../config/schema.ts'
import { asError } from '../thrown.ts'
import type { Outcome } from './host.ts'

/** Logs how a reload has ended. `config` is in use then; `cause` has asked for the reload. */
export function tellOutcome(log: FastifyBaseLogger, config: Config, cause: string, outcome: Outcome): void {
  const { applied, hash, faults, warnings, waitingFor, durationMs } = outcome
  for (const warning of warnings) log.warn({ cause, ...placeOf(warning) }, `configuration: ${line(warning)}`)
  for (const fault of faults) log.error({ cause, ...placeOf(fault) }, `configuration not reloaded: ${line(fault)}`)
  if (!applied) return
  const counts = { routes: config.routes.length, services: Object.keys(config.services).length }
  log.info({ cause, file: config.file, hash, ...counts, durationMs }, 'configuration reloaded')
  if (waitingFor.length === 0) return
  log.warn({ cause, waitingFor }, 'services of the new configuration have not been found yet: their routes answer 503')
}

/** The message is that of the log line. */
const placeOf = ({ message: _, ...place }: Fault) => place

/** Returns what has stopped a reload. */
export function faultsOf(thrown: unknown, file: string): readonly Fault[] {
  if (thrown instanceof ConfigError) return thrown.faults
  return [{ file, line: 0, column: 0, path: '', message: asError(thrown).message }]
}
