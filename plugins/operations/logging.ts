import type { FastifyServerOptions } from 'fastify'
import { destination } from 'pino'

/** Lines of requests wait for each other up to this size or this long: a write each would cost more than making them. */
const bufferBytes = 65_536
const flushMs = 250
/** And what nobody takes from stdout is dropped beyond this, rather than kept without end. */
const mostBytes = 16 * 1024 * 1024

/** What the access log calls its lines. */
const accessLine = 'request'

/**
 * pino on stdout, a JSON line an event; `JINGWEI_LOG_LEVEL` sets how much (trace … fatal, silent). Lines of
 * requests wait for each other, all others are written at once.
 */
export function loggerOptions(env: NodeJS.ProcessEnv = process.env): FastifyServerOptions['logger'] {
  // What is still held when the process ends, pino writes then.
  const stream = destination({
    dest: 1,
    sync: false,
    minLength: bufferBytes,
    maxWrite: 2 * bufferBytes,
    maxLength: mostBytes,
    periodicFlush: flushMs
  })
  return {
    level: env.JINGWEI_LOG_LEVEL ?? 'info',
    base: { name: 'jingwei' },
    timestamp,
    formatters: { level: (label) => ({ level: label }) },
    hooks: {
      logMethod(args, method) {
        method.apply(this, args)
        if (args[1] !== accessLine) stream.flush()
      }
    },
    stream
  }
}

let stampedMs = 0
let stamp = ''

/** ISO 8601; made once a millisecond. */
function timestamp(): string {
  const now = Date.now()
  if (now !== stampedMs) {
    stampedMs = now
    stamp = `,"time":"${new Date(now).toISOString()}"`
  }
  return stamp
}
