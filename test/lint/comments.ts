// The lint rule for the first word of a comment: a noun or a verb, never a pronoun or a question word.
// As a command (`npm run lint`): `node test/lint/comments.ts FILE_OR_FOLDER …` lists each bad opening, and ends with 1.
import { globSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

export interface Comment {
  /** The line on which the comment begins, from 1. */
  readonly line: number
  /** The text without its marks. */
  readonly text: string
}

export interface BadOpening {
  readonly line: number
  readonly word: string
  readonly cure: string
}

const noun = 'begin with the noun, or with a verb in the third person ("Returns", "Closes")'
const type = 'name the type or the thing instead of the pronoun'
const moved = 'begin with the noun or the verb, and put this word behind it'

/** The banned first words, each with the advice that the error message gives. */
const cures: ReadonlyMap<string, string> = new Map([
  ...['what', 'who', 'whose', 'how', 'where', 'whether', 'such'].map((word) => [word, noun] as const),
  ...['somebody', 'nobody', 'it', 'they', 'that', 'this', 'those'].map((word) => [word, type] as const),
  ...['also', 'only', 'likewise'].map((word) => [word, moved] as const)
])

export function badOpenings(source: string): BadOpening[] {
  return commentsOf(source).flatMap(({ line, text }) => {
    const [word] = /^[A-Za-z]+/.exec(text) ?? ['']
    const cure = cures.get(word.toLowerCase())
    return cure === undefined ? [] : [{ line, word, cure }]
  })
}

/** Returns the comments of a TypeScript source. Line comments below each other are one comment. */
export function commentsOf(source: string): Comment[] {
  const comments: Comment[] = []
  let continuedAt = 0
  for (const { at, text } of scan(source)) {
    const line = source.slice(0, at).split('\n').length
    const isAlone = source.slice(source.lastIndexOf('\n', at - 1) + 1, at).trim() === ''
    const isLine = text.startsWith('//')
    const isContinuation = isLine && isAlone && line === continuedAt
    if (!isContinuation) comments.push({ line, text: text.replace(/^\/[/*]+\s*(?:\*\s)?/, '').replace(/\s*\*\/$/, '') })
    continuedAt = isLine && isAlone ? line + 1 : 0
  }
  return comments
}

/** Keywords after which a slash begins a regular expression, although they look like names. */
const beforeExpression = new Set(
  'await case delete do else extends in instanceof new of return throw typeof void yield'.split(' ')
)
const patterns = {
  space: /\s+/y,
  comment: /\/\/.*|\/\*[\s\S]*?\*\//y,
  string: /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"/y,
  /** The part of a template until its end or its next `${`. */
  template: /(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{)/y,
  regex: /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/\w*/y,
  word: /#?[\w$\u0080-\uffff]+/y
}

/**
 * Yields the comments of a source. Strings, templates and regular expressions are skipped as a whole, so that `'/*'` begins
 * no comment. A slash begins a regular expression unless a value precedes it; a misreading ends in an unclosed literal,
 * which throws.
 */
function* scan(source: string): Generator<{ at: number; text: string }> {
  let at = 0
  let afterValue = false
  /** The open braces: true for `${`, after whose end the template goes on. */
  const braces: boolean[] = []
  const take = (name: keyof typeof patterns): string | null => {
    const pattern = patterns[name]
    pattern.lastIndex = at
    const found = pattern.exec(source)?.[0] ?? null
    if (found !== null) at += found.length
    return found
  }
  const need = (name: 'string' | 'template' | 'regex'): string => {
    const begin = at
    const found = take(name)
    if (found === null) throw new SyntaxError(`line ${source.slice(0, begin).split('\n').length}: unclosed ${name}`)
    return found
  }
  const template = () => {
    const isOpen = need('template').endsWith('{')
    if (isOpen) braces.push(true)
    afterValue = !isOpen
  }
  while (at < source.length) {
    if (take('space') !== null) continue
    const begin = at
    const text = take('comment')
    if (text !== null) {
      yield { at: begin, text }
      continue
    }
    const word = take('word')
    if (word !== null) {
      afterValue = !beforeExpression.has(word)
      continue
    }
    const character = source[at]!
    if (character === "'" || character === '"') {
      need('string')
      afterValue = true
    } else if (character === '/' && !afterValue) {
      need('regex')
      afterValue = true
    } else {
      at++
      if (character === '`') template()
      else if (character === '{') {
        braces.push(false)
        afterValue = false
      } else if (character === '}') {
        if (braces.pop() === true) template()
        else afterValue = false
      } else if (character !== '!' || source[at] === '=') {
        // A `!` keeps the state: in `a! / b` a value precedes it, in `!/b/` none does.
        afterValue = character === ')' || character === ']'
      }
    }
  }
}

if (import.meta.main) {
  const files = process.argv.slice(2).flatMap((path) => {
    return statSync(path).isDirectory() ? globSync('**/*.ts', { cwd: path }).map((file) => join(path, file)) : [path]
  })
  if (files.length === 0) throw new Error('name the files and folders to check')
  for (const file of files.sort()) {
    for (const { line, word, cure } of badOpenings(readFileSync(file, 'utf8'))) {
      console.error(`${file}:${line}: the comment begins with "${word}": ${cure}`)
      process.exitCode = 1
    }
  }
  console.log(`Checked the first words of the comments in ${files.length} files.`)
}
