/** Random numbers that a seed reproduces (sfc32, seeded by FNV-1a of the parts). */
export class Random {
  #a: number
  #b: number
  #c: number
  #d = 1

  constructor(...parts: (string | number)[]) {
    const text = parts.join('\n')
    this.#a = hash(text, 0x811c9dc5)
    this.#b = hash(text, 0x9e3779b9)
    this.#c = hash(text, 0x85ebca6b)
    for (let i = 0; i < 12; i++) this.next()
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#d) | 0
    this.#d = (this.#d + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (this.#c << 21) | (this.#c >>> 11)
    this.#c = (this.#c + sum) | 0
    return (sum >>> 0) / 2 ** 32
  }

  /** Both ends included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)]!
  }

  /** Mostly small, at times large: powers of two are equally likely. */
  size(max: number): number {
    return Math.floor(2 ** (this.next() * Math.log2(max + 1))) - 1
  }

  /** One character a byte. */
  bytes(count: number): string {
    return Array.from({ length: count }, () => String.fromCharCode(this.int(0, 255))).join('')
  }
}

export function hash(text: string, start = 0x811c9dc5): number {
  let value = start
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}
