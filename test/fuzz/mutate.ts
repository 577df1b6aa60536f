import type { Random } from './random.ts'

/** Bytes that end, join or disguise something in HTTP. */
const special = [
  '\r', '\n', '\r\n', '\r\n\r\n', '\n\n', '\0', '\x01', '\x0b', '\x7f', '\x80', '\xa0', '\xff', ' ', '\t', ':', ',', ';',
  '0', '-', '+', '%', '/', '\\', '#', '?', '0\r\n\r\n', '\r\n ', '\r\r\n', 'HTTP/1.1'
] // biome-ignore format: a list

type Mutation = (text: string, random: Random) => string

const splice = (text: string, at: number, drop: number, insert: string) =>
  text.slice(0, at) + insert + text.slice(at + drop)
const anywhere = (text: string, random: Random) => random.int(0, Math.max(0, text.length - 1))

const mutations: Mutation[] = [
  (text, random) => {
    const at = anywhere(text, random)
    return splice(text, at, 1, String.fromCharCode(text.charCodeAt(at) ^ (1 << random.int(0, 7))))
  },
  (text, random) => splice(text, anywhere(text, random), 1, random.pick(special)),
  (text, random) => splice(text, anywhere(text, random), 0, random.pick(special)),
  (text, random) => splice(text, anywhere(text, random), 0, random.bytes(random.int(1, 4))),
  (text, random) => splice(text, anywhere(text, random), 1 + random.size(40), ''),
  (text, random) => {
    const at = anywhere(text, random)
    return splice(text, at, 0, text.slice(at, at + 1 + random.size(200)))
  },
  (text, random) => {
    // A digit: of a length, a chunk's size, a version, a status.
    const digits = [...text.matchAll(/\d/g)]
    return digits.length === 0 ? text : splice(text, random.pick(digits).index, 1, `${random.int(0, 9)}`)
  },
  (text, random) => {
    const lines = text.split('\r\n')
    const [from, to] = [random.int(0, lines.length - 1), random.int(0, lines.length - 1)]
    const [moved] = random.chance(0.5) ? lines.splice(from, 1) : [lines[from]]
    lines.splice(to, 0, moved!)
    return lines.join('\r\n')
  },
  (text, random) => {
    // The other ends of lines.
    const ends = [...text.matchAll(/\r\n/g)]
    return ends.length === 0
      ? text
      : splice(text, random.pick(ends).index, 2, random.pick(['\n', '\r', '\r\r\n', '', '\n\r']))
  },
  (text, random) => text.slice(0, anywhere(text, random))
]

/** One character a byte, in and out. `lines` are put between the lines of the header section at times. */
export function mutate(text: string, random: Random, lines: readonly string[]): string {
  let mutated = text
  for (let count = 1 + random.size(4); count > 0; count--) {
    const ends = [...mutated.slice(0, 4000).matchAll(/\r\n/g)]
    if (ends.length > 0 && random.chance(0.35)) {
      mutated = splice(mutated, random.pick(ends).index + 2, 0, `${random.pick(lines)}\r\n`)
    } else mutated = random.pick(mutations)(mutated, random)
  }
  return mutated
}
