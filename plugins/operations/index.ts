import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import stores from '../keep-stores.ts'
import about from './about.ts'
import admin from './admin.ts'
import drain from './drain.ts'
import metrics from './metrics.ts'
import pluginGuard from './plugin-guard.ts'
import requestLogger from './request-logger.ts'

/** Operations of both halves: metrics, log, admin API. They are registered before the halves, which need none of them. */
export default fp<Config & { counts: boolean }>(
  async (fastify, { counts, ...config }) => {
    await fastify.register(stores, {}) // before all that keep state there
    await fastify.register(requestLogger) // before any route
    await fastify.register(pluginGuard) // before any `onRoute` hook
    // Both halves count from their first moment, or not at all where nobody could read it.
    if (counts) await fastify.register(metrics)
    await fastify.register(about, config)
    await fastify.register(drain, config) // health shows it
    await fastify.register(admin, config) // the port on which all of it is seen
  },
  { name: 'jingwei-operations', fastify: '5.x' }
)
