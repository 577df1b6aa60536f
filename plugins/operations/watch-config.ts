/**
 * Reloads the configuration when its file changes (`watch: true`). Only this file is watched here; certificates and keys are
 * watched by their users. The code of plugins is not watched, since Node loads a module once per process.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Config } from '../../config/schema.ts'
import type { Watch } from '../watch-files.ts'
import { watchFile } from '../watch-files.ts'

/** Poll interval; tests change it. */
export const configTiming = { interval: 2000 }

/**
 * Watches the file of the configuration in use. `reload` must not reject. It may find the content that is in use already: if
 * a signal or a request came first, or after the file could not be read.
 */
export function watchConfig({ file, hash }: Config, log: FastifyBaseLogger, reload: () => Promise<void>): Watch {
  return watchFile(file, {
    intervalMs: configTiming.interval,
    known: hash,
    onChange: reload,
    // The reload fails and is counted as a failure, since a restart would fail, too.
    onError: (err) => {
      log.error({ err, file }, 'cannot read the configuration file; the current configuration stays in use')
      void reload()
    }
  })
}
