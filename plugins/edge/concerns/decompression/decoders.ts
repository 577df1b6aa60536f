/** Makes the zlib streams that decompress bodies, and bounds the memory that all of them take together. */
import type { BrotliDecompress, Gunzip, Inflate, ZstdDecompress } from 'node:zlib'
import { constants, createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib'

export const codings = ['gzip', 'br', 'zstd', 'deflate'] as const
export type Coding = (typeof codings)[number]

/** Memory for all bodies that are decompressed now, in bytes. */
export const mostMemory = 256 * 1024 * 1024
/** Part of it for the bodies of one client, which could else keep all others waiting by bodies that it does not end. */
export const mostMemoryOfClient = mostMemory / 2

const kilobyte = 1024
const megabyte = 1024 * kilobyte

/** Memory of a stream: its window and its buffers. Brotli's window may be longer: `longWindow`. */
export const memoryOf: Readonly<Record<Coding, number>> = {
  gzip: 200 * kilobyte,
  deflate: 200 * kilobyte,
  br: 4.5 * megabyte,
  zstd: 8.5 * megabyte
}

/** Longest window of zstd in HTTP (RFC 9659), in bits. */
const zstdWindow = 23

/** Further memory for a window of 16 MB. */
export const longWindow = 12 * megabyte

/** Returns whether the first byte of a brotli stream announces a window above 4 MB (RFC 7932, 9.1). */
export const hasLongWindow = (first: number): boolean => (first & 1) === 1 && (first & 0b1110) >> 1 > 5

// Bytes after the end are an error: the service would not see them. For gzip, `DecompressedBody` finds them, since several
// members are one body (RFC 1952), which this option does not allow.
const whole = { rejectGarbageAfterEnd: true }

export type Decoder = Gunzip | Inflate | BrotliDecompress | ZstdDecompress

export const open: Readonly<Record<Coding, () => Decoder>> = {
  gzip: () => createGunzip(),
  deflate: () => createInflate(whole as object),
  br: () => createBrotliDecompress(whole as object),
  zstd: () => createZstdDecompress({ ...whole, params: { [constants.ZSTD_d_windowLogMax]: zstdWindow } } as object)
}

/** Encodings of one body. */
const mostCodings = 3

/**
 * Returns the codings of a body, in the order in which they are undone; empty for none. Null if one of them is unknown, or if
 * there are more than three.
 */
export function codingsOf(field: string): readonly Coding[] | null {
  const names = field
    .toLowerCase()
    .split(',', 32)
    .map((name) => name.trim())
    .filter((name) => name !== '' && name !== 'identity')
    .map((name) => (name === 'x-gzip' ? 'gzip' : name))
  if (names.length > mostCodings || field.length > 200) return null
  return names.every((name): name is Coding => (codings as readonly string[]).includes(name)) ? names.reverse() : null
}
