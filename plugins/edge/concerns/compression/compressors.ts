/** Makes zlib streams, and bounds the memory that all of them take together. */
import type { BrotliCompress, Gzip, ZstdCompress } from 'node:zlib'
import { constants, createBrotliCompress, createGzip, createZstdCompress } from 'node:zlib'
import type { MemoryBudget } from '../../memory-budget.ts'
import type { Encoding } from './accept-encoding.ts'
import type { Options } from './options.ts'

export type Zlib = Gzip | BrotliCompress | ZstdCompress

/** Memory for all compressors of the process, in bytes. */
export const mostMemory = 256 * 1024 * 1024

/** Longest window, in bits: 256 KB for zstd and brotli, whose own defaults take megabytes for each stream; 32 KB for gzip. */
const longestWindow = { zstd: 18, br: 18, gzip: 15 } as const
const shortestWindow = 10

/** Memory of a stream by its level, in KB, as measured with the longest window, with a reserve. */
const kilobytes: Readonly<Record<Encoding, readonly (readonly [upTo: number, size: number])[]>> = {
  zstd: [[3, 1500], [6, 3500], [9, 12_000]],
  br: [[1, 700], [4, 1500], [6, 3500], [9, 28_000], [11, 12_000]],
  gzip: [[9, 450]]
} // biome-ignore format: a table

/** Memory of the queues of one stream, in bytes. */
const queues = 160 * 1024

const memoryOf = (encoding: Encoding, level: number): number =>
  kilobytes[encoding].find(([upTo]) => level <= upTo)![1] * 1024 + queues

/** Flush operations, after which a client can decode all bytes so far. */
export const flushes: Readonly<Record<Encoding, number>> = {
  zstd: constants.ZSTD_e_flush,
  br: constants.BROTLI_OPERATION_FLUSH,
  gzip: constants.Z_SYNC_FLUSH
}

/** Returns the window for a body, in bits: a small body needs no long one. */
function windowFor(encoding: Encoding, length: number | null): number {
  const longest = longestWindow[encoding]
  if (length === null) return longest
  return Math.min(longest, Math.max(shortestWindow, Math.ceil(Math.log2(length + 1))))
}

/** Returns a stream that compresses a body; `length`: its bytes, null if unknown. */
function create(encoding: Encoding, level: number, length: number | null): Zlib {
  const window = windowFor(encoding, length)
  if (encoding === 'gzip') return createGzip({ level, windowBits: window, memLevel: Math.min(8, window - 6) })
  if (encoding === 'br') {
    const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = constants
    const hint = length === null ? {} : { [BROTLI_PARAM_SIZE_HINT]: Math.min(length, 2 ** 30) }
    return createBrotliCompress({ params: { [BROTLI_PARAM_QUALITY]: level, [BROTLI_PARAM_LGWIN]: window, ...hint } })
  }
  const { ZSTD_c_compressionLevel, ZSTD_c_windowLog } = constants
  return createZstdCompress({ params: { [ZSTD_c_compressionLevel]: level, [ZSTD_c_windowLog]: window } })
}

export class Compressors {
  readonly #budget: MemoryBudget
  readonly #level: Options['level']

  constructor(budget: MemoryBudget, level: Options['level']) {
    this.#budget = budget
    this.#level = level
  }

  /** Returns a stream that compresses a body; null if the memory is in use, or cannot be had. */
  open(encoding: Encoding, length: number | null): Zlib | null {
    const level = this.#level[encoding]
    const memory = memoryOf(encoding, level)
    if (!this.#budget.take(memory)) return null
    let zlib: Zlib
    try {
      zlib = create(encoding, level, length)
    } catch {
      this.#budget.give(memory)
      return null
    }
    zlib.once('close', () => this.#budget.give(memory))
    return zlib
  }
}
