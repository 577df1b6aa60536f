import type { FastifyBaseLogger } from 'fastify'
import type { LoggerOptions } from 'pino'
import { pino } from 'pino'
import { maskCredentials } from '../../config/credentials.ts'
import { logName as name, timestamp } from '../log-line.ts'
import { LogWriter, nonBlocking } from '../log-writer.ts'
import { loggedError } from './logged-error.ts'

/** Destination of the log. */
interface LineStream {
  write(line: string): void
  /** Writes a line within 250 ms, together with others. */
  batch(line: string): void
}

let stdout: LogWriter | undefined

/** Returns the number of log lines that stdout has lost since the start of the process. */
export const droppedLines = (): number => stdout?.dropped ?? 0

/** Resolves once the log on stdout is written, at the latest after `timeoutMs`. */
export const logFlushed = async (timeoutMs: number): Promise<void> => stdout?.flushed(timeoutMs)

/** Returns the one log on stdout, which all gateways of the process share. */
function standardLog(): LogWriter {
  stdout ??= new LogWriter(nonBlocking(1), {
    formatDropped: (lines, reason) => {
      const msg = `${lines} log lines were dropped: stdout could not be written (${reason})`
      return `{"level":"error"${timestamp()},"name":"${name}","lines":${lines},"reason":"${reason}","msg":"${msg}"}\n`
    }
  })
  return stdout
}

const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']

/** Validates the log level. An empty variable counts as unset, as in `docker compose`. */
function levelOf(text: string | undefined): string {
  const level = text || 'info'
  if (levels.includes(level)) return level
  throw new Error(`JINGWEI_LOG_LEVEL: expected one of ${levels.join(', ')}, found "${level}"`)
}

/** Serializers: an error is always an object in the field `err`. */
export const serializers = { err: loggedError }

/**
 * Options for pino: a JSON line for each event, on stdout. `JINGWEI_LOG_LEVEL` sets the level (trace … fatal, silent).
 * Access lines are written in batches, all others at once.
 */
export function loggerOptions(env: NodeJS.ProcessEnv = process.env): LoggerOptions & { stream: LineStream } {
  const lines = standardLog()
  return {
    level: levelOf(env.JINGWEI_LOG_LEVEL),
    base: { name },
    timestamp,
    serializers,
    formatters: { level: (label) => ({ level: label }) },
    // The access log writes its lines by `batch`. They have no query and no URL of the configuration.
    stream: { write: (line: string) => lines.write(maskCredentials(line)), batch: (line: string) => lines.batch(line) }
  }
}

/** Makes the log of the process, which outlives a configuration. */
export function createLog(): FastifyBaseLogger {
  const { stream, ...options } = loggerOptions()
  return pino(options, stream)
}
