/**
 * Regular expressions with linear cost for every text: the pattern is compiled into a nondeterministic automaton whose states
 * advance in parallel. JavaScript's engine backtracks, so a text chosen by a client could take seconds.
 *
 * Patterns match the whole text and must begin with `^` and end with `$`. Supported are characters, `.`, classes, `\d \w \s`
 * and their negations, groups, `|`, and the quantifiers `? * + {n} {n,m}`. Back-references, look-around and `\b` are not.
 */

import type { Automaton, State } from './linear-automaton.ts'
import { Parser } from './linear-automaton.ts'

/** Compiles a pattern; throws a SyntaxError that names what is not supported. */
export const linearRegExp = (pattern: string): ((text: string) => boolean) =>
  matcher(new Parser(pattern).parse(), null, false)

const mostStatesOfSearch = 10_000

/**
 * Returns a function that searches for a pattern in a text, as ECMAScript does: anchors may stand at the ends of the pattern and
 * of its alternatives. `spend` is called with the work for each character, and may throw.
 */
export function linearSearch(pattern: string, spend: (work: number) => void): (text: string) => boolean {
  const whole = alternativesOf(pattern).map((text) => {
    const before = text.startsWith('^') ? '' : '[\\S\\s]*'
    const isEnd = /(?:^|[^\\])(?:\\\\)*\$$/.test(text)
    return `${before}${text.slice(before === '' ? 1 : 0, isEnd ? -1 : undefined)}${isEnd ? '' : '[\\S\\s]*'}`
  })
  const dialect = { mostStates: mostStatesOfSearch, isEcma: true }
  // Without characters above U+FFFF in the pattern, a pair of surrogates is one character for it.
  return matcher(new Parser(`^(?:${whole.join('|')})$`, dialect).parse(), spend, !/[\ud800-\udfff]/.test(pattern))
}

/** Returns the alternatives of a pattern at its uppermost level. */
function alternativesOf(pattern: string): string[] {
  const found: string[] = []
  let from = 0
  let depth = 0
  let isInClass = false
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at]
    if (character === '\\') at++
    else if (isInClass) isInClass = character !== ']'
    else if (character === '[') isInClass = true
    else if (character === '(') depth++
    else if (character === ')') depth--
    else if (character === '|' && depth === 0) {
      found.push(pattern.slice(from, at))
      from = at + 1
    }
  }
  return [...found, pattern.slice(from)]
}

function matcher(
  { start, end, count }: Automaton,
  spend: ((work: number) => void) | null,
  joinsPairs: boolean
): (text: string) => boolean {
  const seen = new Uint32Array(count)
  let round = 0
  let current: State[] = []
  let following: State[] = []
  const pending: State[] = []

  /** Adds a state and all states that it reaches without consuming a character. */
  function follow(from: State, to: State[]): void {
    pending.push(from)
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      if (seen[state.index] === round) continue
      seen[state.index] = round
      if (state.test === null) pending.push(...state.next)
      else to.push(state)
    }
  }

  return (text) => {
    if (round > 0xf000_0000) {
      round = 0
      seen.fill(0)
    }
    round++
    current.length = 0
    follow(start, current)
    for (let i = 0; i < text.length; i++) {
      if (current.length === 0) return false
      let code = text.charCodeAt(i)
      if (joinsPairs && code >= 0xd800 && code < 0xdc00) {
        code = text.codePointAt(i)!
        if (code > 0xffff) i++
      }
      spend?.(current.length)
      following.length = 0
      round++
      for (const { test, next } of current) if (test!(code)) follow(next[0]!, following)
      const done = current
      current = following
      following = done
    }
    return seen[end.index] === round
  }
}

/** Positions in a text: start and end of each group; -1 for a group that did not take part. */
type Positions = readonly number[]

/** Number of groups of a pattern, and the function that returns the texts of its groups, by number; null without a match. */
export interface LinearGroups {
  readonly count: number
  readonly match: (text: string) => string[] | null
}

/** Returns the other case of an ASCII letter, and any other character as it is. */
function otherCase(code: number): number {
  const upper = code & ~0x20
  return upper >= 65 && upper <= 90 ? code ^ 0x20 : code
}

/** The same for a pattern whose groups are used, optionally without regard to the case of ASCII letters. If a text matches in several ways, groups are those of JavaScript's engine. */
export function linearGroups(pattern: string, ignoresCase = false): LinearGroups {
  const { start, end, count, groups } = new Parser(pattern).parse()
  const none: Positions = new Array(groups * 2).fill(-1)
  return {
    count: groups,
    match(text) {
      let threads: { readonly state: State; readonly saved: Positions }[] = []
      const seen = new Int32Array(count)
      const follow = (from: State, at: number, positions: Positions, to: typeof threads) => {
        const pending = [{ state: from, saved: positions }]
        for (let one = pending.pop(); one !== undefined; one = pending.pop()) {
          const { state } = one
          if (seen[state.index] === at + 1) continue
          seen[state.index] = at + 1
          const saved = state.save === -1 ? one.saved : one.saved.with(state.save, at)
          if (state.test !== null || state === end) to.push({ state, saved })
          else for (const next of state.next.toReversed()) pending.push({ state: next, saved })
        }
      }
      follow(start, 0, none, threads)
      for (let i = 0; i < text.length && threads.length > 0; i++) {
        const code = text.charCodeAt(i)
        const following: typeof threads = []
        for (const { state, saved } of threads) {
          if (state.test?.(code) || (ignoresCase && state.test?.(otherCase(code))))
            follow(state.next[0]!, i + 1, saved, following)
        }
        threads = following
      }
      const found = threads.find(({ state }) => state === end)?.saved
      if (found === undefined) return null
      return Array.from({ length: groups }, (_, group) =>
        text.slice(Math.max(found[2 * group]!, 0), Math.max(found[2 * group + 1]!, 0))
      )
    }
  }
}
