/**
 * Regular expressions with linear cost for every text: the pattern is compiled into a nondeterministic automaton whose states
 * advance in parallel. JavaScript's engine backtracks, so a text chosen by a client could take seconds. A search keeps the
 * sets of states that texts have reached, so that most characters take one step.
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

/** States that a text may have reached, with those that follow them by the next character. */
interface Reached {
  readonly states: readonly State[]
  readonly isEnd: boolean
  readonly next: Map<number, Reached>
}

/** States in all sets that are kept, so that they take a few megabytes. */
const mostKept = 200_000
/** Sets that one text may add. With more, the pattern has too many sets to keep. */
const mostAdded = 200
/** Work for a character whose set is kept: a unit for this many. */
const keptPerUnit = 4

interface Kept {
  /** Sets by the indexes of their states. */
  readonly sets: Map<string, Reached>
  readonly first: Reached
}

/** The sets of all matchers. When they are too many, all are dropped. */
let keptSets = new WeakMap<Automaton, Kept>()
let kept = 0

function matcher(
  automaton: Automaton,
  spend: ((work: number) => void) | null,
  joinsPairs: boolean
): (text: string) => boolean {
  const { start, end, count } = automaton
  const seen = new Uint32Array(count)
  let round = 0
  let work = 0
  const pending: State[] = []

  /** Adds a state and all states that it reaches without consuming a character. */
  function follow(from: State, to: State[]): void {
    pending.push(from)
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      work++
      if (seen[state.index] === round) continue
      seen[state.index] = round
      if (state.test === null) pending.push(...state.next)
      else to.push(state)
    }
  }

  function nextRound(): void {
    if (round === 0xffff_ffff) {
      round = 0
      seen.fill(0)
    }
    round++
  }

  function startStates(): State[] {
    const states: State[] = []
    nextRound()
    follow(start, states)
    return states
  }

  /** Returns the states after a character. */
  function advance(states: readonly State[], code: number): State[] {
    const following: State[] = []
    nextRound()
    work += states.length
    for (const { test, next } of states) if (test!(code)) follow(next[0]!, following)
    return following
  }

  function spendWork(): void {
    const done = work
    work = 0
    spend?.(done)
  }

  /** Returns the set of the states that were reached in this round. */
  function keep(states: State[], sets: Map<string, Reached>): Reached {
    const isEnd = seen[end.index] === round
    states.sort((a, b) => a.index - b.index)
    const key = `${states.map(({ index }) => index).join()}${isEnd ? '$' : ''}`
    // The key costs more than to visit the states.
    work += 2 * states.length
    let set = sets.get(key)
    if (set === undefined) {
      set = { states, isEnd, next: new Map() }
      sets.set(key, set)
      kept += states.length
    }
    kept++
    return set
  }

  /** Returns whether a text matches whose first characters lead to `states`. */
  function searchOn(text: string, from: number, states: readonly State[]): boolean {
    let current = states
    for (let i = from; i < text.length; i++) {
      if (current.length === 0) return false
      const code = codeAt(text, i, joinsPairs)
      if (code > 0xffff) i++
      current = advance(current, code)
      spendWork()
    }
    return seen[end.index] === round
  }

  function keptSetsOf(): Kept {
    if (kept > mostKept) {
      kept = 0
      keptSets = new WeakMap()
    }
    let found = keptSets.get(automaton)
    if (found === undefined) {
      const sets = new Map<string, Reached>()
      found = { sets, first: keep(startStates(), sets) }
      keptSets.set(automaton, found)
    }
    return found
  }

  return (text) => {
    if (spend === null) return searchOn(text, 0, startStates())
    const { sets, first } = keptSetsOf()
    let current = first
    let added = 0
    for (let i = 0; i < text.length; i++) {
      if (current.states.length === 0) return false
      const code = codeAt(text, i, joinsPairs)
      let next = current.next.get(code)
      if (next === undefined) {
        const states = advance(current.states, code)
        if (++added > mostAdded || kept > mostKept) return searchOn(text, i + (code > 0xffff ? 2 : 1), states)
        next = keep(states, sets)
        current.next.set(code, next)
        spendWork()
      }
      if (code > 0xffff) i++
      current = next
    }
    spend(Math.ceil(text.length / keptPerUnit))
    return current.isEnd
  }
}

/** Returns the character at an index: with `joinsPairs`, a pair of surrogates is one. */
function codeAt(text: string, at: number, joinsPairs: boolean): number {
  const code = text.charCodeAt(at)
  return joinsPairs && code >= 0xd800 && code < 0xdc00 ? text.codePointAt(at)! : code
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
