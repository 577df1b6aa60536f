import type { FastifyServerOptions } from 'fastify'
import { destination } from 'pino'

/** Lines of requests wait for each other up to this size or this long: a write each would cost more than making them. */
const heldCharacters = 65_536
const flushMs = 250
/** And what nobody takes from stdout is dropped beyond this, rather than kept without end. */
const mostBytes = 16 * 1024 * 1024

/** Marks the access log's fields: plain values, that need none of pino's care. */
const plain = Symbol.for('jingwei.log.plain')

/**
 * pino on stdout, a JSON line an event; `JINGWEI_LOG_LEVEL` sets how much (trace … fatal, silent). Lines of
 * requests wait for each other, all others are written at once.
 */
export function loggerOptions(env: NodeJS.ProcessEnv = process.env): FastifyServerOptions['logger'] {
  const lines = new HeldLines()
  const name = 'jingwei'
  return {
    level: env.JINGWEI_LOG_LEVEL ?? 'info',
    base: { name },
    timestamp,
    formatters: { level: (label) => ({ level: label }) },
    hooks: {
      logMethod(args, method) {
        const fields: unknown = args[0]
        if (typeof fields !== 'object' || fields === null || !(plain in fields)) return method.apply(this, args)
        // As pino would write it, at a third of its cost.
        const rest = JSON.stringify(fields).slice(1, -1)
        lines.hold(`{"level":"info"${timestamp()},"name":"${name}",${rest},"msg":${JSON.stringify(args[1])}}\n`)
      }
    },
    stream: lines
  }
}

/** pino's stream: what it writes leaves at once, with what was held before it. */
class HeldLines {
  /** Gathered here rather than by the destination, which counts all that it holds anew with each line. */
  #held = ''
  #timer: NodeJS.Timeout | null = null
  readonly #stdout = destination({ dest: 1, sync: false, maxLength: mostBytes })

  constructor() {
    process.once('exit', () => {
      this.#flush()
      this.#stdout.flushSync()
    })
  }

  write(line: string): void {
    this.#held += line
    this.#flush()
  }

  hold(line: string): void {
    this.#held += line
    if (this.#held.length > heldCharacters) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), flushMs).unref()
  }

  #flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#held === '') return
    this.#stdout.write(this.#held)
    this.#held = ''
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
