import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import stores from '../keep-stores.ts'
import about from './about.ts'
import admin from './admin.ts'
import drain from './drain.ts'
import metrics from './metrics.ts'
import metricsPush from './metrics-push.ts'
import pluginGuard from './plugin-guard.ts'
import requestLogger from './request-logger.ts'
import spanRecorder from './span-recorder.ts'
import userFunctions from './user-functions.ts'
import userSources from './user-sources.ts'

/** The ordered list of operations: metrics, log, admin API. They are registered before both halves, which do not need them. */
export default fp<Config & { counts: boolean }>(
  async (fastify, { counts, ...config }) => {
    await fastify.register(stores, {}) // before every plugin that claims state
    await fastify.register(requestLogger) // before any route
    await fastify.register(pluginGuard) // before any `onRoute` hook
    await fastify.register(userSources, config) // before the mesh
    await fastify.register(userFunctions, config) // before the edge
    // Registered before both halves, so that they count from the start; not at all if no code could read the metrics.
    if (counts) await fastify.register(metrics)
    await fastify.register(spanRecorder, config) // before both halves; after metrics, which count spans
    await fastify.register(metricsPush, config) // after the metrics
    await fastify.register(about, config)
    await fastify.register(drain, config) // before health, which shows draining
    await fastify.register(admin, config) // last: its pages show the others
  },
  { name: 'jingwei-operations', fastify: '5.x' }
)
