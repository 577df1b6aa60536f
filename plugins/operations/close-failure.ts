import type { FastifyBaseLogger } from 'fastify'

/** Failure of a plugin's `onClose` hook. The guard of the plugin logs it with the plugin's name. */
export class CloseFailure extends Error {
  constructor(plugin: string, cause: Error) {
    super(`plugin ${plugin} failed in onClose: ${cause.message}`, { cause })
    this.name = 'CloseFailure'
  }
}

/** Logs why a gateway did not close cleanly, unless the guard of a plugin has logged it. */
export function logCloseFailure(log: FastifyBaseLogger, err: unknown, hash: string): void {
  if (err instanceof CloseFailure) return
  log.error({ hash, err }, `closing the gateway of configuration ${hash} failed; its resources may stay open`)
}
