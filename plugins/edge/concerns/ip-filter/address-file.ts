/** A file with one address or CIDR range a line, read again when it changes. */
import { readFileSync, statSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { AddressRange } from '../../../address-ranges.ts'
import { AddressSet, parseRange } from '../../../address-ranges.ts'
import type { Watch } from '../../../watch-files.ts'
import { watchFile } from '../../../watch-files.ts'

/** About 700,000 ranges. */
const mostBytes = 16 * 1024 * 1024
/** A change is used once two polls have found the same. */
const intervalMs = 1000

/** Reads the ranges of a file. Throws an error that names the file and, for a malformed line, its number. */
export function readRanges(file: string): AddressRange[] {
  try {
    checkSize(statSync(file).size)
    return rangesOf(readFileSync(file, 'utf8'))
  } catch (error) {
    throw unusable(file, error)
  }
}

function checkSize(bytes: number): void {
  if (bytes > mostBytes) throw new Error(`larger than ${mostBytes} bytes`)
}

/** Returns the ranges of a text. Empty lines and comments, from `#` to the end of the line, are ignored. */
function rangesOf(text: string): AddressRange[] {
  return text.split('\n').flatMap((line, index) => {
    const [entry = ''] = line.split('#')
    if (entry.trim() === '') return []
    try {
      return parseRange(entry.trim())
    } catch (error) {
      throw new Error(`line ${index + 1}: ${(error as Error).message}`)
    }
  })
}

function unusable(file: string, error: unknown): Error {
  const { code, message } = error as NodeJS.ErrnoException
  return new Error(`${file}: ${code === undefined ? message : `cannot be read (${code})`}`, { cause: error })
}

export class AddressFile {
  #addresses: AddressSet
  readonly #watch: Watch

  constructor(file: string, log: FastifyBaseLogger) {
    this.#addresses = new AddressSet(readRanges(file))
    const failed = (error: unknown) =>
      log.error({ file, err: error }, 'cannot read a list of addresses: the last one stays in use')
    this.#watch = watchFile(file, {
      intervalMs,
      // The first content is read once more: without its digest, no change between two reads is lost.
      onChange: async () => {
        try {
          checkSize((await stat(file)).size)
          const ranges = rangesOf(await readFile(file, 'utf8'))
          this.#addresses = new AddressSet(ranges)
          log.info({ file, ranges: ranges.length }, 'list of addresses read')
        } catch (error) {
          failed(unusable(file, error))
        }
      },
      onError: failed
    })
  }

  get addresses(): AddressSet {
    return this.#addresses
  }

  close(): void {
    this.#watch.close()
  }
}
