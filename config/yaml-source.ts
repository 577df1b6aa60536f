/** YAML text as its parser's events, with what the events lack: positions, anchors, and syntax errors in plain words. */
import type { Event } from 'js-yaml'
import { EVENT_ID, parseEvents, SCALAR_STYLE, YAMLException } from 'js-yaml'
import type { Position } from './faults.ts'

export class SyntaxFault extends Error {
  readonly position: Position

  constructor(position: Position, message: string) {
    super(message)
    this.position = position
  }
}

export const starAdvice = 'text that begins with "*" must be in quotes'
const unclosed = 'a "{", a "[" or a quote above is not closed'
const bracketAdvice = 'text with "{", "[" or "," in it must be in quotes'
const indent = 'indented differently than the lines above that it belongs to'

/** Messages for the parser's reasons; where one reason has several causes, the text around its position tells which. */
const messages: readonly (readonly [reason: RegExp, before: RegExp, after: RegExp, message: string])[] = [
  [/alias node must contain/, /^/, /^/, starAdvice],
  [/anchor node must contain/, /^/, /^/, 'text that begins with "&" must be in quotes'],
  [/exceeded maxDepth/, /^/, /^/, 'values are nested too deep'],
  [/quoted scalar$/, /^/, /^/, 'the closing quote is missing'],
  [/within a flow collection$/, /^/, /^/, unclosed],
  [/deficient indentation/, /^/, /^/, unclosed],
  [/tab characters|bad indentation/, /^\s*\t\s*$/, /^/, 'a tab is not allowed as indentation'],
  [/tab characters/, /^/, /^/, 'a tab is not allowed as indentation'],
  [/^/, /[:[{,-][ ]+$/, /^[@`%]/, 'text that begins with "@", "%" or a backtick must be in quotes'],
  [/missed comma/, /^/, /^\{/, `unexpected "{"; ${bracketAdvice}`],
  [/missed comma/, /^/, /^\[/, `unexpected "["; ${bracketAdvice}`],
  [/bad indentation/, /[}\]]$/, /^/, bracketAdvice],
  [
    /bad indentation/,
    /['"]$/,
    /^/,
    'text follows a closing quote; a quote within quotes is written twice, or behind a "\\"'
  ],
  [/bad indentation/, /:[ ].*$/, /^:/, 'text with ": " in it must be in quotes'],
  [/bad indentation/, /:[ ]+$/, /^-[ ]/, 'a list begins on a line of its own'],
  [/bad indentation/, /^[ ]*[^:]*$/, /^/, indent],
  [/end of the stream/, /^/, /^/, `this does not go with what stands above: ${indent}, or a key without its colon`]
]

/** One document: its events, by index, and the text that they point into. */
export class YamlSource {
  readonly text: string
  readonly events: readonly Event[]
  /** Aliases in the document, whether or not their anchors exist. */
  aliases = 0
  /** Of the event that opens a collection, the index after the event that closes it. */
  readonly #ends: Int32Array
  /** Of an alias's event, the index of the event that it stands for: the last one before it with its anchor. */
  readonly #targets = new Map<number, number>()
  readonly #lineStarts: readonly number[]

  /** @throws {SyntaxFault} for text that is no YAML, and for more than one document. */
  constructor(text: string) {
    this.text = text
    this.#lineStarts = lineStartsOf(text)
    this.events = this.#parse()
    this.#ends = new Int32Array(this.events.length)
    this.#scan()
  }

  get isEmpty(): boolean {
    return this.events.length === 0
  }

  /** The index of the node that stands at an index: of an alias, what it stands for; undefined without its anchor. */
  resolved(index: number): number | undefined {
    return this.events[index]?.type === EVENT_ID.ALIAS ? this.#targets.get(index) : index
  }

  /** The indexes of what a collection holds; in a mapping, of a key and its value by turns. */
  items(collection: number): number[] {
    const items: number[] = []
    for (let index = collection + 1; this.events[index]?.type !== EVENT_ID.POP; ) {
      items.push(index)
      index = this.#ends[index] || index + 1
    }
    return items
  }

  /** Returns whether an index is within a collection, however deep. */
  holds(collection: number, index: number): boolean {
    return index > collection && index < this.#ends[collection]!
  }

  /** The name that an alias or an anchor is written with; empty without one. */
  anchor(index: number): string {
    const event = this.events[index]!
    return 'anchorStart' in event && event.anchorStart >= 0 ? this.text.slice(event.anchorStart, event.anchorEnd) : ''
  }

  /** A tag as it is written: `!!str`; empty without one. */
  tag(index: number): string {
    const event = this.events[index]!
    return 'tagStart' in event && event.tagStart >= 0 ? this.text.slice(event.tagStart, event.tagEnd) : ''
  }

  /** Returns the position of the node at an index, or null for a value that is not written: `key:`. */
  start(index: number): Position | null {
    const offset = this.#offset(index)
    return offset < 0 ? null : this.#position(offset)
  }

  #offset(index: number): number {
    const event = this.events[index]
    switch (event?.type) {
      case EVENT_ID.ALIAS:
        return event.anchorStart - 1
      case EVENT_ID.MAPPING:
      case EVENT_ID.SEQUENCE:
        return event.start
      case EVENT_ID.SCALAR: {
        const { style, valueStart } = event
        if (style === SCALAR_STYLE.PLAIN) return valueStart
        if (style === SCALAR_STYLE.LITERAL_BLOCK) return this.text.lastIndexOf('|', valueStart)
        if (style === SCALAR_STYLE.FOLDED_BLOCK) return this.text.lastIndexOf('>', valueStart)
        return valueStart - 1
      }
      default:
        return -1
    }
  }

  #position(offset: number): Position {
    const starts = this.#lineStarts
    let [low, high] = [0, starts.length - 1]
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (starts[middle]! <= offset) low = middle
      else high = middle - 1
    }
    return { line: low + 1, column: offset - starts[low]! + 1 }
  }

  #parse(): Event[] {
    try {
      return parseEvents(this.text, {})
    } catch (error) {
      if (!(error instanceof YAMLException) || error.mark === undefined) throw error
      const { reason, mark } = error
      // An alias or an anchor without a name is told behind its character.
      const at = Math.min(mark.position, this.text.length) - (/must contain/.test(reason) ? 1 : 0)
      const position = this.#position(at)
      const before = this.text.slice(this.#lineStarts[position.line - 1], at)
      const after = this.text.slice(at, at + 2)
      const known = messages.find(([of, left, right]) => of.test(reason) && left.test(before) && right.test(after))
      // Text that the parser quotes may hold a secret.
      throw new SyntaxFault(position, known?.[3] ?? reason.replace(/ "[^"]*"/g, ''))
    }
  }

  #scan(): void {
    const open: number[] = []
    const anchors = new Map<string, number>()
    for (const [index, event] of this.events.entries()) {
      if (event.type === EVENT_ID.POP) {
        this.#ends[open.pop()!] = index + 1
        continue
      }
      if (event.type === EVENT_ID.DOCUMENT) {
        if (index > 0) this.#refuseSecond(index)
        open.push(index)
        continue
      }
      const anchor = this.anchor(index)
      if (event.type === EVENT_ID.ALIAS) {
        this.aliases++
        const target = anchors.get(anchor)
        if (target !== undefined) this.#targets.set(index, target)
        continue
      }
      if (anchor !== '') anchors.set(anchor, index)
      if (event.type !== EVENT_ID.SCALAR) open.push(index)
    }
  }

  /** Events of documents have no position; the line that begins the second is the last `---` before its content. */
  #refuseSecond(document: number): never {
    const content = this.#offset(document + 1)
    const marker = this.text.lastIndexOf('\n---', content < 0 ? this.text.length : content)
    throw new SyntaxFault(this.#position(marker + 1), 'only one document is allowed in the file')
  }
}

function lineStartsOf(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}
