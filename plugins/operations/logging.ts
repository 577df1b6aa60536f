import type { FastifyServerOptions } from 'fastify'

/** pino on stdout, a JSON line an event; `JINGWEI_LOG_LEVEL` sets how much (trace … fatal, silent). */
export function loggerOptions(env: NodeJS.ProcessEnv = process.env): FastifyServerOptions['logger'] {
  return {
    level: env.JINGWEI_LOG_LEVEL ?? 'info',
    base: { name: 'jingwei' },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) }
  }
}
