import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import type { SpanRecorder } from '../spans.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Takes the spans of both halves; absent if the configuration has no section for them. */
    spanRecorder: SpanRecorder
  }
}

/** Loads the export of spans with the first configuration that has it. */
export default fp<Config>(
  async (fastify, { tracing }) => {
    if (tracing !== undefined) await fastify.register(import('./tracing/index.ts'), { options: tracing })
  },
  { name: 'jingwei-span-recorder', fastify: '5.x' }
)
