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

/** A comment with nothing before it on its line. */
const alone = /^\s*(\/\/|\/\*+)\s*(.*)$/
/** A comment behind code. A quote in its text means that it may stand in a string: it is passed over. */
const behind = /\S\s+(?:\/\/|\/\*+)\s*([^'"`]*)$/

/**
 * Returns the comments of a TypeScript source. Line comments below each other are one comment. It reads line by line, without
 * knowledge of the syntax, so a line of a template that looks like a comment is one.
 */
export function commentsOf(source: string): Comment[] {
  const comments: Comment[] = []
  const lines = source.split('\n')
  let continues = false
  lines.forEach((content, index) => {
    const line = index + 1
    const [, mark, first] = alone.exec(content) ?? []
    // The text of a block may begin on its second line.
    const text = mark === undefined ? behind.exec(content)?.[1] : first || (lines[line] ?? '').replace(/^\s*\*\s*/, '')
    if (text !== undefined && !(mark === '//' && continues))
      comments.push({ line, text: text.replace(/\s*\*\/.*$/, '') })
    continues = mark === '//'
  })
  return comments
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
