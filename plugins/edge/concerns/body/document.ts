/**
 * A JSON text that is changed without being parsed and written anew: every byte outside the changes stays, so that numbers
 * keep their digits, and strings their escapes. Only the lists and objects on the way to a change are taken apart.
 */
import { isUtf8 } from 'node:buffer'
import { afterComma, checkJson, endOfString, endOfValue, skipSpace, Unfit, valueAfterName } from './scan.ts'

/** Most members and items that are taken apart in one body. It bounds memory and time. */
const mostParts = 250_000

const byteOrderMark = Buffer.from('\ufeff')
const emptyObject = Buffer.from('{}')

/** A member of an object, or an item of a list. */
export class Part {
  readonly text: Buffer
  /** Start of the text before the part: whitespace, and from the second part on a comma. -1 for an added part. */
  readonly from: number
  /** Start of the name, or of the item. */
  readonly at: number
  /** End of the name. */
  readonly nameEnd: number
  /** End of the colon and the whitespace after it. */
  readonly headEnd: number
  /** Name as JSON, if it is not that of the text: of an added member, or of one that is written with escapes. */
  readonly name: Buffer | null
  value: Value

  constructor(value: Value, name: Buffer | null, from = -1, at = -1, nameEnd = -1, headEnd = -1) {
    this.text = value.text
    this.value = value
    this.name = name
    this.from = from
    this.at = at
    this.nameEnd = nameEnd
    this.headEnd = headEnd
  }

  /** Returns whether the member has this name, given as JSON. */
  isNamed(name: Buffer): boolean {
    if (this.name !== null) return this.name.equals(name)
    const { text, at, nameEnd } = this
    if (nameEnd - at !== name.length) return false
    for (let index = 1; index < name.length; index++) if (text[at + index] !== name[index]) return false
    return true
  }

  write(writer: Writer): void {
    const { text, from, at, headEnd, name } = this
    if (from !== -1) writer.add(text, at, headEnd)
    else if (name !== null) {
      writer.add(name, 0, name.length)
      writer.add(colon, 0, 1)
    }
    this.value.write(writer)
  }
}

/** Returns a name in the spelling of `JSON.stringify` if it is written with escapes; null if it has none. */
function plainName(text: Buffer, start: number, end: number): Buffer | null {
  for (let at = start; at < end; at++) {
    if (text[at] === 0x5c) return Buffer.from(JSON.stringify(JSON.parse(text.toString('utf8', start, end))))
  }
  return null
}

/** A value of the text, or a new one. */
export class Value {
  readonly text: Buffer
  readonly start: number
  readonly end: number
  /** Members or items; null until the value is taken apart. */
  #parts: Part[] | null = null
  /** End of the whitespace after the opening bracket. */
  #first = 0
  /** Index after the last part, before the whitespace and the closing bracket. */
  #last = 0
  #isChanged = false

  constructor(text: Buffer, start = 0, end = text.length) {
    this.text = text
    this.start = start
    this.end = end
  }

  get isObject(): boolean {
    return this.text[this.start] === 0x7b
  }

  get isList(): boolean {
    return this.text[this.start] === 0x5b
  }

  get isChanged(): boolean {
    return this.#isChanged
  }

  /** Returns the members or items; none of a text or a number. */
  parts(document: Document): readonly Part[] {
    if (this.#parts === null) this.#parts = this.isObject || this.isList ? this.#takeApart(document) : []
    return this.#parts
  }

  #takeApart(document: Document): Part[] {
    const { text, isObject } = this
    const parts: Part[] = []
    const close = isObject ? 0x7d : 0x5d
    let from = this.start + 1
    let at = skipSpace(text, from)
    this.#first = at
    this.#last = at
    if (text[at] === close) return parts
    for (;;) {
      document.countPart()
      const nameEnd = isObject ? endOfString(text, at) : at
      const valueAt = isObject ? valueAfterName(text, nameEnd) : at
      const end = document.endOf(text, valueAt)
      const name = isObject ? plainName(text, at, nameEnd) : null
      parts.push(new Part(new Value(text, valueAt, end), name, from, at, nameEnd, valueAt))
      this.#last = end
      from = end
      at = skipSpace(text, end)
      if (text[at] === close) return parts
      at = skipSpace(text, afterComma(text, at))
    }
  }

  /** Marks that a value within this one has changed. */
  markChanged(): void {
    this.#isChanged = true
  }

  /** Removes parts. */
  keep(document: Document, isKept: (part: Part) => boolean): void {
    const before = this.parts(document)
    const kept = before.filter(isKept)
    if (kept.length === before.length) return
    this.#parts = kept
    this.#isChanged = true
  }

  /** Adds a member, or an item without a name. */
  append(document: Document, name: Buffer | null, value: Value): void {
    this.parts(document)
    document.countPart()
    this.#parts!.push(new Part(value, name))
    this.#isChanged = true
  }

  replace(part: Part, value: Value): void {
    part.value = value
    this.#isChanged = true
  }

  write(writer: Writer): void {
    const { text, start, end } = this
    if (!this.#isChanged) {
      writer.add(text, start, end)
      return
    }
    writer.add(text, start, start + 1)
    const parts = this.#parts!
    parts.forEach((part, index) => {
      if (index === 0) writer.add(text, start + 1, this.#first)
      else if (part.from === -1) writer.add(comma, 0, 1)
      else writer.add(text, part.from, part.at)
      part.write(writer)
    })
    writer.add(text, parts.length === 0 ? end - 1 : this.#last, end)
  }
}

const comma = Buffer.from(',')
const colon = Buffer.from(':')

/** Writes ranges of texts one after another. Adjacent ranges are copied together. */
class Writer {
  readonly #most: number
  #out: Buffer
  #size = 0
  #text: Buffer = comma
  #start = 0
  #end = 0

  constructor(expected: number, most: number) {
    this.#most = most
    this.#out = Buffer.allocUnsafeSlow(Math.min(expected, most))
  }

  add(text: Buffer, start: number, end: number): void {
    if (text === this.#text && start === this.#end) {
      this.#end = end
      return
    }
    this.#copy()
    this.#text = text
    this.#start = start
    this.#end = end
  }

  #copy(): void {
    const length = this.#end - this.#start
    const size = this.#size + length
    if (size > this.#most) throw new Unfit('size')
    if (size > this.#out.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(this.#most, Math.max(size, this.#out.length * 2)))
      this.#out.copy(larger, 0, 0, this.#size)
      this.#out = larger
    }
    this.#text.copy(this.#out, this.#size, this.#start, this.#end)
    this.#size = size
  }

  end(): Buffer {
    this.#copy()
    this.#start = this.#end
    return this.#out.subarray(0, this.#size)
  }
}

export class Document {
  readonly #text: Buffer
  readonly #ends: ReadonlyMap<number, number>
  readonly #whole: Value
  #parts = 0
  #root: Value

  /** Throws `Unfit` unless the bytes are JSON in UTF-8. A byte order mark is left out (RFC 8259, 8.1). */
  constructor(bytes: Buffer) {
    const hasMark = bytes.subarray(0, 3).equals(byteOrderMark)
    this.#text = hasMark ? bytes.subarray(3) : bytes
    if (!isUtf8(this.#text)) throw new Unfit('malformed')
    const { start, end, ends } = checkJson(this.#text)
    this.#ends = ends
    this.#whole = new Value(this.#text, start, end)
    this.#root = this.#whole
  }

  get root(): Value {
    return this.#root
  }

  replaceRoot(value: Value): void {
    this.#root = value
  }

  /** Returns the end of a value. */
  endOf(text: Buffer, start: number): number {
    return (text === this.#text ? this.#ends.get(start) : undefined) ?? endOfValue(text, start, 0)
  }

  countPart(): void {
    this.#parts++
    if (this.#parts > mostParts) throw new Unfit('members')
  }

  /** Returns the text with its changes; the bytes themselves without any. Throws `Unfit` if it exceeds `most` bytes. */
  bytes(most: number): Buffer {
    const { root } = this
    const isWhole = root === this.#whole
    if (isWhole && !root.isChanged) return this.#text
    const writer = new Writer(this.#text.length + 256, most)
    if (isWhole) writer.add(root.text, 0, root.start)
    root.write(writer)
    if (isWhole) writer.add(root.text, root.end, root.text.length)
    return writer.end()
  }
}

/** Returns an object without members. */
export const objectWithoutMembers = (): Value => new Value(emptyObject)
