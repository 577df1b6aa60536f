/** Reads the text of a configuration file. */
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { isAbsolute, resolve } from 'node:path'
import { ConfigError } from './faults.ts'

/** Most bytes of a file. To parse and check that many takes about ten seconds. */
const largest = 64 * 1024 * 1024

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'is a folder, not a file',
  EACCES: 'permission denied'
}

/** Text of a file, and the hash of its bytes. */
export interface Source {
  readonly text: string
  readonly hash: string
}

/** Returns the text of a file. Throws a `ConfigError` if it cannot be read. */
export function sourceOf(file: string): Source {
  try {
    const { size } = statSync(file)
    // The size of a pipe is known once it has been read.
    const bytes = size > largest ? null : readFileSync(file)
    if (bytes === null || bytes.length > largest) throw new Error('is larger than 64 MB; is it a configuration?')
    return { text: bytes.toString(), hash: hashOf(bytes) }
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    const where = isAbsolute(file) ? '' : `: ${resolve(file)}`
    throw new ConfigError(file, [
      { file, line: 0, column: 0, path: '', message: `${reasons[code] ?? message}${where}` }
    ])
  }
}

/** Returns the same hash as `sha256sum FILE | cut -c1-16`, by which operators compare the files of nodes. */
export function hashOf(bytes: string | Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}
