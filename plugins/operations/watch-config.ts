/**
 * Reloads the configuration when its file changes, with `watch: true`. Only the file itself counts. Certificates and keys
 * are watched where they are used. The code of plugins is not watched, since Node loads a module once in a process.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Config } from '../../config/schema.ts'
import type { Watch } from '../watch-files.ts'
import { watchFile } from '../watch-files.ts'

/** Changed by tests only. */
export const configTiming = { interval: 2000 }

/**
 * Watches the file of a configuration that is in use. `reload` must not be rejected. It may meet the content that is in
 * use already, where a signal or a request was faster or after the file could not be read.
 */
export function watchConfig({ file, hash }: Config, log: FastifyBaseLogger, reload: () => Promise<void>): Watch {
  return watchFile(file, {
    intervalMs: configTiming.interval,
    known: hash,
    onChange: reload,
    // It fails, and is counted as a failure: a restart would fail, too.
    onError: (err) => {
      log.error({ err, file }, 'cannot read the configuration file; the current configuration stays in use')
      void reload()
    }
  })
}
