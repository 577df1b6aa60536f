/**
 * Returns MurmurHash3 (x86, 32 bits) of a string's UTF-16 code units: fast in JavaScript, well mixed for similar keys,
 * and the same in every gateway. It is not cryptographic: a caller that chooses its key can choose its instance.
 */
export function hash32(text: string, seed = 0): number {
  const { length } = text
  let hash = seed
  let at = 0
  for (; at + 1 < length; at += 2) {
    hash ^= scramble(text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16))
    hash = Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64
  }
  if (at < length) hash ^= scramble(text.charCodeAt(at))
  return mix32(hash ^ (length << 1))
}

function scramble(block: number): number {
  const mixed = Math.imul(block, 0xcc9e2d51)
  return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
}

/** Murmur3's finalizer: a bijection on 32 bits in which every input bit affects every output bit. */
export function mix32(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

/** Returns whether a number is prime. Only in a table of prime size does every step width visit all slots. */
export function isPrime(value: number): boolean {
  for (let divisor = 2; divisor * divisor <= value; divisor++) if (value % divisor === 0) return false
  return value > 1
}
