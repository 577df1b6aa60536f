/** Parses the regular expressions of linear-regexp.ts into automata. */

/** Maximum number of states, which bounds the cost per character. */
const fewStates = 500

/** Options for patterns whose cost is counted where they are used. */
export interface Dialect {
  readonly mostStates: number
  /** True if `.` matches no line terminator, and characters may be written as `\n` or `\u00e9`. */
  readonly isEcma: boolean
}

type Test = (code: number) => boolean
/**
 * A state: with a test, consumes a matching character and continues with `next[0]`; without, continues with all of `next`,
 * the preferred one first.
 */
export interface State {
  readonly test: Test | null
  next: State[]
  index: number
  /** Index of the text position that the state records; -1: none. */
  readonly save: number
}
/** A part of the automaton; the next part is attached to its `end`. */
interface Piece {
  readonly start: State
  readonly end: State
}

export interface Automaton extends Piece {
  /** Number of states. */
  readonly count: number
  /** Number of groups. */
  readonly groups: number
}

const isDigit: Test = (code) => code >= 48 && code <= 57
const isWord: Test = (code) => isDigit(code) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) || code === 95
const isSpace: Test = (code) => code === 32 || (code >= 9 && code <= 13)
const classes: Readonly<Record<string, Test>> = { d: isDigit, w: isWord, s: isSpace }
/** Line terminators of ECMAScript. */
const isLineEnd: Test = (code) => code === 10 || code === 13 || code === 0x2028 || code === 0x2029
const controls: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13 }

export class Parser {
  readonly #pattern: string
  #at = 0
  #states = 0
  /** Numbers of groups, by their positions: the copies of a repeated group have one number. */
  readonly #groups = new Map<number, number>()
  readonly #dialect: Dialect

  constructor(pattern: string, dialect: Dialect = { mostStates: fewStates, isEcma: false }) {
    this.#pattern = pattern
    this.#dialect = dialect
  }

  parse(): Automaton {
    if (!this.#takes('^')) throw new SyntaxError('it must begin with "^", since it is compared with the whole text')
    const piece = this.#alternatives()
    if (!this.#takes('$')) {
      const rest = this.#pattern.slice(this.#at)
      throw new SyntaxError(
        rest === '' ? 'it must end with "$", since it is compared with the whole text' : `at "${rest}"`
      )
    }
    if (this.#at < this.#pattern.length) throw new SyntaxError('"$" may only stand at its end')
    return { ...piece, count: this.#states, groups: this.#groups.size }
  }

  #state(test: Test | null = null, next: State[] = [], save = -1): State {
    if (this.#states === this.#dialect.mostStates) throw new SyntaxError('it is too large')
    return { test, next, index: this.#states++, save }
  }

  #takes(text: string): boolean {
    if (!this.#pattern.startsWith(text, this.#at)) return false
    this.#at += text.length
    return true
  }

  #alternatives(): Piece {
    const branches = [this.#sequence()]
    while (this.#takes('|')) branches.push(this.#sequence())
    if (branches.length === 1) return branches[0]!
    const end = this.#state()
    for (const branch of branches) branch.end.next.push(end)
    return {
      start: this.#state(
        null,
        branches.map(({ start }) => start)
      ),
      end
    }
  }

  #sequence(): Piece {
    const start = this.#state()
    let end = start
    while (this.#at < this.#pattern.length && !'|)$'.includes(this.#pattern[this.#at]!)) {
      const piece = this.#quantified()
      end.next.push(piece.start)
      end = piece.end
    }
    return { start, end }
  }

  #quantified(): Piece {
    const begin = this.#at
    const piece = this.#atom()
    const after = this.#at
    const [least, most] = this.#quantifier()
    if (least === 1 && most === 1) return piece
    // Creates a copy of the atom for a repetition by parsing it again.
    const resume = this.#at
    const copy = (): Piece => {
      this.#at = begin
      const again = this.#atom()
      this.#at = resume
      return again
    }
    let isLazy = false
    if (after !== resume && '?*+{'.includes(this.#pattern[resume] ?? ' ')) {
      if (!this.#takes('?')) throw new SyntaxError('a quantifier of a quantifier')
      isLazy = true
    }
    const preferred = (inner: State, out: State) => (isLazy ? [out, inner] : [inner, out])
    const done = this.#at
    const start = this.#state()
    let end = start
    let first: Piece | null = piece
    const take = (): Piece => {
      const taken = first ?? copy()
      first = null
      return taken
    }
    for (let i = 0; i < least; i++) {
      const required = take()
      end.next.push(required.start)
      end = required.end
    }
    const last = this.#state()
    if (most === Number.POSITIVE_INFINITY) {
      const loop = this.#state()
      const repeated = take()
      end.next.push(loop)
      loop.next.push(...preferred(repeated.start, last))
      repeated.end.next.push(loop)
    } else {
      for (let i = least; i < most; i++) {
        const optional = take()
        end.next.push(...preferred(optional.start, last))
        end = optional.end
      }
      end.next.push(last)
    }
    this.#at = done
    return { start, end: last }
  }

  #quantifier(): [least: number, most: number] {
    if (this.#takes('?')) return [0, 1]
    if (this.#takes('*')) return [0, Number.POSITIVE_INFINITY]
    if (this.#takes('+')) return [1, Number.POSITIVE_INFINITY]
    const [text, least, comma, most] = /^\{(\d{1,3})(,(\d{0,3}))?\}/.exec(this.#pattern.slice(this.#at)) ?? []
    if (text === undefined) return [1, 1]
    this.#at += text.length
    if (comma === undefined) return [Number(least), Number(least)]
    if (most === '') return [Number(least), Number.POSITIVE_INFINITY]
    if (Number(most) < Number(least)) throw new SyntaxError(`the bounds of "${text}" are reversed`)
    return [Number(least), Number(most)]
  }

  #atom(): Piece {
    const character = this.#pattern[this.#at++]!
    if (character === '(') return this.#group()
    if (character === '[') return this.#one(this.#class())
    if (character === '.') return this.#one(this.#dialect.isEcma ? (code) => !isLineEnd(code) : () => true)
    if (character === '\\') return this.#one(this.#escape())
    if ('^*+?{}])'.includes(character)) throw new SyntaxError(`"${character}" must be escaped by "\\"`)
    const code = character.charCodeAt(0)
    return this.#one((other) => other === code)
  }

  #one(test: Test): Piece {
    const end = this.#state()
    return { start: this.#state(test, [end]), end }
  }

  #group(): Piece {
    const begin = this.#at
    const isCounted = !this.#takes('?')
    if (!isCounted && !this.#takes(':')) throw new SyntaxError('"(?" other than "(?:" is not supported')
    const number = this.#groups.get(begin) ?? this.#groups.size
    if (isCounted) this.#groups.set(begin, number)
    const piece = this.#alternatives()
    if (!this.#takes(')')) throw new SyntaxError('a "(" is not closed')
    if (!isCounted) return piece
    const end = this.#state(null, [], 2 * number + 1)
    piece.end.next.push(end)
    return { start: this.#state(null, [piece.start], 2 * number), end }
  }

  /** Parses a class such as `\d`, or an escaped character. */
  #escape(): Test {
    const character = this.#pattern[this.#at++]
    if (character === undefined) throw new SyntaxError('a "\\" at the end')
    const known = classes[character.toLowerCase()]
    if (known !== undefined) return character === character.toLowerCase() ? known : (code) => !known(code)
    const escaped = this.#dialect.isEcma ? this.#character(character) : null
    if (escaped !== null) return (code) => code === escaped
    if (/[A-Za-z0-9]/.test(character)) throw new SyntaxError(`"\\${character}" is not supported`)
    const code = character.charCodeAt(0)
    return (other) => other === code
  }

  /** Returns the character of an escape such as `\n`, `\x41` or `\u0041`; null for another escape. */
  #character(letter: string): number | null {
    const control = controls[letter]
    if (control !== undefined) return control
    const form = letter === 'x' ? /^[\da-fA-F]{2}/ : letter === 'u' ? /^[\da-fA-F]{4}/ : null
    const [digits] = form?.exec(this.#pattern.slice(this.#at)) ?? []
    if (digits === undefined) return null
    this.#at += digits.length
    return Number.parseInt(digits, 16)
  }

  #class(): Test {
    const negated = this.#takes('^')
    const tests: Test[] = []
    while (!this.#takes(']')) {
      const character = this.#pattern[this.#at++]
      if (character === undefined) throw new SyntaxError('a "[" is not closed')
      if (character === '\\') {
        tests.push(this.#escape())
        continue
      }
      const low = character.charCodeAt(0)
      const [dash, high, close] = this.#pattern.slice(this.#at, this.#at + 3)
      if (dash === '-' && high !== undefined && high !== ']' && high !== '\\' && close !== undefined) {
        this.#at += 2
        const top = high.charCodeAt(0)
        if (top < low) throw new SyntaxError(`the bounds of "${character}-${high}" are reversed`)
        tests.push((code) => code >= low && code <= top)
      } else tests.push((code) => code === low)
    }
    return (code) => tests.some((test) => test(code)) !== negated
  }
}
