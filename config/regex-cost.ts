/**
 * Finds patterns whose matching may take more than linear time. If two repetitions can match the same characters, a
 * backtracking matcher tries all ways to divide a text between them. The pattern is converted to an automaton with a state
 * for each character (Glushkov). It is ambiguous in this way if one text leads from a state p back to p, from p to another
 * state q, and from q back to q.
 */

/** A piece of a pattern: static text, a regular expression, or any characters (except one). */
export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'expression'; readonly source: string }
  | { readonly kind: 'any'; readonly but: string }

type Ranges = readonly (readonly [from: number, to: number])[]

type Tree =
  | { readonly kind: 'set'; readonly ranges: Ranges }
  | { readonly kind: 'sequence'; readonly items: readonly Tree[] }
  | { readonly kind: 'choice'; readonly items: readonly Tree[] }
  | { readonly kind: 'repeat'; readonly item: Tree; readonly min: number; readonly max: number }

/** Limits for patterns; larger ones are refused. */
const MOST_STATES = 300
const MOST_STEPS = 100_000
/** Counted repetitions up to this number are expanded; longer ones are treated as unbounded. */
const MOST_COPIES = 10

const LAST = 0xffff
const everything: Ranges = [[0, LAST]]

/** Returns the reason why a pattern is refused; null if it is fine. */
export function costFault(pieces: readonly Piece[]): string | null {
  try {
    const automaton = new Automaton({ kind: 'sequence', items: pieces.map(treeOf) })
    return automaton.isAmbiguous()
      ? 'two of its repetitions can match the same characters, so matching a long path can take very long'
      : null
  } catch (error) {
    if (error instanceof TooComplicated) return error.message
    throw error
  }
}

class TooComplicated extends Error {}

function treeOf(piece: Piece): Tree {
  if (piece.kind === 'expression') return new Parser(piece.source).whole()
  if (piece.kind === 'text') {
    return { kind: 'sequence', items: [...piece.text].map((char) => ({ kind: 'set', ranges: single(char) })) }
  }
  const ranges = piece.but === '' ? everything : inverse(single(piece.but))
  return { kind: 'repeat', item: { kind: 'set', ranges }, min: 1, max: Number.POSITIVE_INFINITY }
}

function single(char: string): Ranges {
  const code = char.charCodeAt(0)
  return [[code, code]]
}

function inverse(ranges: Ranges): Ranges {
  const gaps: [number, number][] = []
  let from = 0
  for (const [start, end] of ranges.toSorted(([a], [b]) => a - b)) {
    if (start > from) gaps.push([from, start - 1])
    from = Math.max(from, end + 1)
  }
  if (from <= LAST) gaps.push([from, LAST])
  return gaps
}

function common(a: Ranges, b: Ranges): Ranges {
  return a.flatMap(([from, to]) =>
    b.flatMap(([start, end]): [number, number][] => {
      const [low, high] = [Math.max(from, start), Math.min(to, end)]
      return low <= high ? [[low, high]] : []
    })
  )
}

/** Parses the regular expression syntax that a path may contain, without `\` and `?`. Anchors match the empty text. */
class Parser {
  readonly #source: string
  #at = 0

  constructor(source: string) {
    this.#source = source
  }

  whole(): Tree {
    const items = [this.#sequence()]
    while (this.#source[this.#at] === '|') {
      this.#at++
      items.push(this.#sequence())
    }
    return { kind: 'choice', items }
  }

  #sequence(): Tree {
    const items: Tree[] = []
    while (this.#at < this.#source.length && !'|)'.includes(this.#source[this.#at] ?? '')) items.push(this.#repeated())
    return { kind: 'sequence', items }
  }

  #repeated(): Tree {
    let item = this.#atom()
    for (;;) {
      const [text, min, comma, max] = /^(?:[*+]|\{(\d+)(,?)(\d*)\})/.exec(this.#source.slice(this.#at)) ?? []
      if (text === undefined) return item
      this.#at += text.length
      if (min === undefined) {
        item = { kind: 'repeat', item, min: text === '*' ? 0 : 1, max: Number.POSITIVE_INFINITY }
      } else {
        const most = max ? Number(max) : comma ? Number.POSITIVE_INFINITY : Number(min)
        item = { kind: 'repeat', item, min: Number(min), max: most }
      }
    }
  }

  #atom(): Tree {
    const char = this.#source[this.#at++] ?? ''
    if (char === '(') {
      const inner = this.whole()
      this.#at++
      return inner
    }
    if (char === '[') return { kind: 'set', ranges: this.#class() }
    if (char === '.') return { kind: 'set', ranges: everything }
    if (char === '^' || char === '$') return { kind: 'sequence', items: [] }
    return { kind: 'set', ranges: single(char) }
  }

  #class(): Ranges {
    const end = this.#source.indexOf(']', this.#at)
    const text = this.#source.slice(this.#at, end === -1 ? undefined : end)
    this.#at = end === -1 ? this.#source.length : end + 1
    const inverted = text.startsWith('^')
    const ranges: [number, number][] = []
    for (let at = inverted ? 1 : 0; at < text.length; at++) {
      const from = text.charCodeAt(at)
      const isRange = text[at + 1] === '-' && at + 2 < text.length
      ranges.push([from, isRange ? text.charCodeAt(at + 2) : from])
      if (isRange) at += 2
    }
    return inverted ? inverse(ranges) : ranges
  }
}

interface Fragment {
  readonly first: readonly number[]
  readonly last: readonly number[]
  readonly empty: boolean
}

class Automaton {
  readonly #sets: Ranges[] = []
  readonly #next: Set<number>[] = []
  #steps = 0

  constructor(tree: Tree) {
    this.#build(tree)
  }

  #build(tree: Tree): Fragment {
    if (tree.kind === 'set') {
      const state = this.#sets.push(tree.ranges) - 1
      this.#next.push(new Set())
      if (state > MOST_STATES) throw new TooComplicated('the pattern is too long')
      return { first: [state], last: [state], empty: false }
    }
    if (tree.kind === 'choice') {
      const parts = tree.items.map((item) => this.#build(item))
      return {
        first: parts.flatMap(({ first }) => first),
        last: parts.flatMap(({ last }) => last),
        empty: parts.some(({ empty }) => empty)
      }
    }
    if (tree.kind === 'sequence') {
      const nothing: Fragment = { first: [], last: [], empty: true }
      return tree.items.reduce((before, item) => this.#join(before, this.#build(item)), nothing)
    }
    const { item, min, max } = tree
    const isEndless = max - min > MOST_COPIES
    const optional = isEndless ? 1 : max - min
    let whole: Fragment = { first: [], last: [], empty: true }
    for (let copy = 0; copy < Math.min(min, MOST_COPIES); copy++) {
      const part = this.#build(item)
      // For `x+`, the last copy repeats.
      if (isEndless && min === 1) this.#link(part.last, part.first)
      whole = this.#join(whole, part)
    }
    if (isEndless && min === 1) return whole
    for (let copy = 0; copy < optional; copy++) {
      const part = this.#build(item)
      if (isEndless) this.#link(part.last, part.first)
      whole = this.#join(whole, { ...part, empty: true })
    }
    return whole
  }

  #join(a: Fragment, b: Fragment): Fragment {
    this.#link(a.last, b.first)
    return {
      first: a.empty ? [...a.first, ...b.first] : a.first,
      last: b.empty ? [...a.last, ...b.last] : b.last,
      empty: a.empty && b.empty
    }
  }

  #link(from: readonly number[], to: readonly number[]): void {
    for (const state of from) for (const next of to) this.#next[state]!.add(next)
  }

  isAmbiguous(): boolean {
    const cyclic = this.#next.map((_, state) => this.#reachable(state))
    for (const [p, reachable] of cyclic.entries()) {
      if (!reachable.has(p)) continue
      for (const q of reachable) if (q !== p && cyclic[q]!.has(q) && this.#divides(p, q)) return true
    }
    return false
  }

  #reachable(from: number): Set<number> {
    const found = new Set<number>()
    const open = [from]
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      for (const next of this.#next[state]!) {
        if (found.has(next)) continue
        found.add(next)
        open.push(next)
      }
    }
    return found
  }

  /** Returns whether one text leads from p to p, from p to q, and from q to q. */
  #divides(p: number, q: number): boolean {
    const seen = new Set<string>()
    const open: [number, number, number][] = [[p, p, q]]
    for (let states = open.pop(); states !== undefined; states = open.pop()) {
      const [a, b, c] = states
      for (const x of this.#next[a]!) {
        for (const y of this.#next[b]!) {
          const shared = common(this.#sets[x]!, this.#sets[y]!)
          if (shared.length === 0) continue
          for (const z of this.#next[c]!) {
            if (++this.#steps > MOST_STEPS) throw new TooComplicated('the pattern has too many repetitions')
            if (common(shared, this.#sets[z]!).length === 0) continue
            if (x === p && y === q && z === q) return true
            const key = `${x} ${y} ${z}`
            if (seen.has(key)) continue
            seen.add(key)
            open.push([x, y, z])
          }
        }
      }
    }
    return false
  }
}
