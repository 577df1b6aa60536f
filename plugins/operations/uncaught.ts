import type { FastifyBaseLogger } from 'fastify'
import { asError } from '../thrown.ts'
import type { Stop } from './drain.ts'
import type { FaultOwners } from './fault-owners.ts'
import { logFlushed } from './logging.ts'

interface Faulty {
  readonly log: FastifyBaseLogger
  readonly faultOwners?: FaultOwners
}

/** Maximum of logged faults, so that a repeating one does not fill the disk while the gateway drains. */
const mostLines = 20
const flushMs = 1000

/**
 * Handles uncaught exceptions and unhandled rejections. If one belongs to a plugin's code for a request, only that request
 * fails. After any other the state of the process is unknown: the error is logged, the gateway drains, and the process exits
 * with 1, so that its supervisor restarts it. While `stop` returns null, before the gateway listens, it exits at once.
 */
export function handleUncaught(gateway: Faulty, stop: () => Stop | null): () => void {
  let lines = 0
  const handle = (thrown: unknown, origin: string) => {
    const err = asError(thrown)
    const owner = gateway.faultOwners?.current ?? null
    if (owner?.contain(err)) return
    const fields = { ...(owner !== null && { plugin: owner.plugin }), origin, err }
    if (lines++ < mostLines)
      gateway.log.fatal(fields, `uncaught error: the gateway drains and exits with 1: ${err.message}`)
    const end = stop()
    if (end !== null) void end('fault')
    else void logFlushed(flushMs).then(() => process.exit(1))
  }
  const onException = (error: unknown) => handle(error, 'uncaughtException')
  const onRejection = (reason: unknown) => handle(reason, 'unhandledRejection')
  process.on('uncaughtException', onException).on('unhandledRejection', onRejection)
  return () => void process.off('uncaughtException', onException).off('unhandledRejection', onRejection)
}
