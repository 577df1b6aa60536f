/** The configuration file, read, checked and completed; or every fault that it has. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { check } from './check.ts'
import type { Written } from './complete.ts'
import { complete } from './complete.ts'
import type { Fault } from './faults.ts'
import { ConfigError, Report } from './faults.ts'
import { read } from './read.ts'
import type { Config } from './schema.ts'
import { validate } from './validate.ts'

export type { Fault } from './faults.ts'
export { ConfigError }

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file; name one with --config or JINGWEI_CONFIG',
  EISDIR: 'a folder, not a file',
  EACCES: 'may not be read'
}

type Warn = (warning: Fault) => void

/** `warn` is told of each thing that has no effect, unless there are faults. */
export function loadConfig(file: string, env: NodeJS.ProcessEnv = process.env, warn: Warn = () => {}): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    throw new ConfigError(file, [{ file, line: 0, column: 0, path: '', message: reasons[code] ?? message }])
  }
  return parseConfig(text, file, env, warn)
}

export function parseConfig(
  text: string,
  file: string,
  env: NodeJS.ProcessEnv = process.env,
  warn: Warn = () => {}
): Config {
  const report = new Report(file)
  const data = read(text, env, report)
  setAside(data)
  validate(data, report)
  check(data as Written, report, resolve(file))
  report.throwIfAny()
  for (const warning of report.warnings) warn(warning)
  return complete(data as Written, resolve(file), report)
}

/** Removes keys of the file that mean nothing: sections for anchors, and lists whose items are all commented out. */
function setAside(data: unknown): void {
  if (typeof data !== 'object' || data === null) return
  for (const [key, value] of Object.entries(data)) {
    const isEmptyList = (key === 'plugins' || key === 'consumers') && value === null
    if (key.startsWith('x-') || isEmptyList) Reflect.deleteProperty(data, key)
  }
}
