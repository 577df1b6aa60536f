/** Faults of values that appear only when the configuration is used, such as a port in use, with their position in the file. */
import { readFileSync } from 'node:fs'
import { atOnce } from '../plugins/time-slices.ts'
import type { Place } from './faults.ts'
import { ConfigError, Report } from './faults.ts'
import { parsed } from './parse.ts'
import { read } from './read.ts'

/**
 * Creates the fault of the value at a JSON pointer. The file is read again for its position, since the loader keeps none.
 * `message` gets the place of the value, or undefined if the file does not have it.
 */
export function faultAt(
  file: string,
  at: string,
  message: (place: Place | undefined) => string,
  cause: unknown
): ConfigError {
  const report = readable(file) ?? new Report(file)
  report.fault(at, message(report.at(at)))
  return new ConfigError(file, report.faults, { cause })
}

/** Returns the places in a file; null if it was deleted or has become invalid since it was loaded. */
function readable(file: string): Report | null {
  const report = new Report(file)
  try {
    atOnce(read(parsed(readFileSync(file, 'utf8'), report), process.env, report))
  } catch {
    return null
  }
  return report.faults.length > 0 ? null : report
}

/** Returns the first environment variable in a value as it was written, such as `PORT` of `${PORT:-8080}`. */
export function variableOf(place: Place | undefined): string | undefined {
  return /\$\{([A-Za-z_][A-Za-z0-9_]*)/.exec(place?.from ?? '')?.[1]
}
