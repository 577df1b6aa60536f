/** YAML text as the parser's events, with positions, resolved aliases and readable syntax errors. */
import type { Event, ScalarEvent } from 'js-yaml'
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

/** Messages for the parser's reasons. If a reason has several causes, the text before and after its position decides. */
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
  [/end of the stream/, /^/, /^/, `unexpected text: ${indent}, or a key without its colon`]
]

/** A parsed text, in buffers that can be transferred between threads. */
export interface ParsedYaml {
  /** Fields of all events, `FIELDS` numbers per event. */
  readonly events: Int32Array<ArrayBuffer>
  /** For an event that opens a collection: the index after the event that closes it. */
  readonly ends: Int32Array<ArrayBuffer>
  /** Targets of aliases by event index: the last event before the alias with its anchor. */
  readonly targets: ReadonlyMap<number, number>
  /** Number of aliases in the document, including those without an anchor. */
  readonly aliases: number
}

/** Offsets of the fields of an event. `START` is the start of a collection, or of a scalar's value. */
const TYPE = 0
const START = 1
const VALUE_END = 2
const ANCHOR_START = 3
const ANCHOR_END = 4
const TAG_START = 5
const TAG_END = 6
const STYLE = 7
const CHOMPING = 8
const INDENT = 9
const FAST = 10
const FIELDS = 11

/** Value of a field that does not apply to an event. */
const ABSENT = -1

/** @throws {SyntaxFault} for text that is not YAML, and for more than one document. */
export function parseYaml(text: string): ParsedYaml {
  const events = packed(eventsOf(text))
  const count = events.length / FIELDS
  const ends = new Int32Array(count)
  const targets = new Map<number, number>()
  const anchors = new Map<string, number>()
  const open: number[] = []
  let aliases = 0
  for (let index = 0; index < count; index++) {
    const at = index * FIELDS
    const type = events[at + TYPE]
    if (type === EVENT_ID.POP) {
      ends[open.pop()!] = index + 1
      continue
    }
    if (type === EVENT_ID.DOCUMENT) {
      if (index > 0) refuseSecond(text, offsetOf(text, events, index + 1))
      open.push(index)
      continue
    }
    const anchorStart = events[at + ANCHOR_START]!
    const anchor = anchorStart < 0 ? '' : text.slice(anchorStart, events[at + ANCHOR_END])
    if (type === EVENT_ID.ALIAS) {
      aliases++
      const target = anchors.get(anchor)
      if (target !== undefined) targets.set(index, target)
      continue
    }
    if (anchor !== '') anchors.set(anchor, index)
    if (type !== EVENT_ID.SCALAR) open.push(index)
  }
  return { events, ends, targets, aliases }
}

function eventsOf(text: string): Event[] {
  try {
    return parseEvents(text, {})
  } catch (error) {
    if (!(error instanceof YAMLException) || error.mark === undefined) throw error
    const { reason, mark } = error
    // For an alias or an anchor without a name, the parser reports the position after its character.
    const at = Math.min(mark.position, text.length) - (/must contain/.test(reason) ? 1 : 0)
    const starts = lineStartsOf(text)
    const position = positionOf(starts, at)
    const before = text.slice(starts[position.line - 1], at)
    const after = text.slice(at, at + 2)
    const known = messages.find(([of, left, right]) => of.test(reason) && left.test(before) && right.test(after))
    // Quoted text is removed from the parser's message, since it may contain a secret.
    throw new SyntaxFault(position, known?.[3] ?? reason.replace(/ "[^"]*"/g, ''))
  }
}

/** Throws the fault of a second document. Its event has no position, so that of the last `---` before its content is used. */
function refuseSecond(text: string, content: number): never {
  const marker = text.lastIndexOf('\n---', content < 0 ? text.length : content)
  throw new SyntaxFault(positionOf(lineStartsOf(text), marker + 1), 'only one document is allowed in the file')
}

function packed(list: readonly Event[]): Int32Array<ArrayBuffer> {
  const events = new Int32Array(list.length * FIELDS).fill(ABSENT)
  let at = 0
  for (const event of list) {
    events[at + TYPE] = event.type
    if ('anchorStart' in event) {
      events[at + ANCHOR_START] = event.anchorStart
      events[at + ANCHOR_END] = event.anchorEnd
    }
    if ('tagStart' in event) {
      events[at + TAG_START] = event.tagStart
      events[at + TAG_END] = event.tagEnd
    }
    if ('start' in event) events[at + START] = event.start
    if (event.type === EVENT_ID.SCALAR) {
      events[at + START] = event.valueStart
      events[at + VALUE_END] = event.valueEnd
      events[at + STYLE] = event.style
      events[at + CHOMPING] = event.chomping
      events[at + INDENT] = event.indent
      events[at + FAST] = Number(event.fast)
    }
    at += FIELDS
  }
  return events
}

/** One document: its text, and its events by index. */
export class YamlSource {
  readonly text: string
  readonly aliases: number
  readonly #events: Int32Array
  readonly #ends: Int32Array
  readonly #targets: ReadonlyMap<number, number>
  /** Computed with the first request for a position. */
  #lineStarts: readonly number[] | null = null

  constructor(text: string, { events, ends, targets, aliases }: ParsedYaml) {
    this.text = text
    this.aliases = aliases
    this.#events = events
    this.#ends = ends
    this.#targets = targets
  }

  get isEmpty(): boolean {
    return this.#ends.length === 0
  }

  /** Returns the type of an event; undefined after the last one. */
  type(index: number): number | undefined {
    return this.#events[index * FIELDS + TYPE]
  }

  scalar(index: number): ScalarEvent {
    return {
      type: EVENT_ID.SCALAR,
      valueStart: this.#field(index, START),
      valueEnd: this.#field(index, VALUE_END),
      anchorStart: this.#field(index, ANCHOR_START),
      anchorEnd: this.#field(index, ANCHOR_END),
      tagStart: this.#field(index, TAG_START),
      tagEnd: this.#field(index, TAG_END),
      style: this.#field(index, STYLE) as ScalarEvent['style'],
      chomping: this.#field(index, CHOMPING) as ScalarEvent['chomping'],
      indent: this.#field(index, INDENT),
      fast: this.#field(index, FAST) === 1
    }
  }

  /** Returns the index of a node; for an alias, that of its target, or undefined if its anchor does not exist. */
  resolved(index: number): number | undefined {
    return this.type(index) === EVENT_ID.ALIAS ? this.#targets.get(index) : index
  }

  /** Returns the indexes of a collection's items; in a mapping, keys and values alternate. */
  items(collection: number): number[] {
    const items: number[] = []
    for (let index = collection + 1; this.type(index) !== EVENT_ID.POP; ) {
      items.push(index)
      index = this.#ends[index] || index + 1
    }
    return items
  }

  /** Returns whether an index is within a collection, at any depth. */
  holds(collection: number, index: number): boolean {
    return index > collection && index < this.#ends[collection]!
  }

  /** Returns the name of an alias or an anchor; empty if there is none. */
  anchor(index: number): string {
    return this.#slice(index, ANCHOR_START, ANCHOR_END)
  }

  /** Returns a tag as written, such as `!!str`; empty if there is none. */
  tag(index: number): string {
    return this.#slice(index, TAG_START, TAG_END)
  }

  #slice(index: number, start: number, end: number): string {
    const from = this.#field(index, start)
    return from < 0 ? '' : this.text.slice(from, this.#field(index, end))
  }

  #field(index: number, field: number): number {
    return this.#events[index * FIELDS + field]!
  }

  /** Returns the position of the node at an index; null for an empty value: `key:`. */
  start(index: number): Position | null {
    const offset = offsetOf(this.text, this.#events, index)
    if (offset < 0) return null
    this.#lineStarts ??= lineStartsOf(this.text)
    return positionOf(this.#lineStarts, offset)
  }
}

/** Returns the offset of the node at an index; -1 for an empty value, or if there is no node. */
function offsetOf(text: string, events: Int32Array, index: number): number {
  const at = index * FIELDS
  const start = events[at + START]!
  switch (events[at + TYPE]) {
    case EVENT_ID.ALIAS:
      return events[at + ANCHOR_START]! - 1
    case EVENT_ID.MAPPING:
    case EVENT_ID.SEQUENCE:
      return start
    case EVENT_ID.SCALAR: {
      const style = events[at + STYLE]
      if (style === SCALAR_STYLE.PLAIN) return start
      if (style === SCALAR_STYLE.LITERAL_BLOCK) return text.lastIndexOf('|', start)
      if (style === SCALAR_STYLE.FOLDED_BLOCK) return text.lastIndexOf('>', start)
      return start - 1
    }
    default:
      return ABSENT
  }
}

function positionOf(starts: readonly number[], offset: number): Position {
  let [low, high] = [0, starts.length - 1]
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (starts[middle]! <= offset) low = middle
    else high = middle - 1
  }
  return { line: low + 1, column: offset - starts[low]! + 1 }
}

function lineStartsOf(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}
