import t from 'tap'
import { badOpenings, commentsOf } from './comments.ts'

const words = (source: string) => badOpenings(source).map(({ word }) => word)
const texts = (source: string) => commentsOf(source).map(({ text }) => text)

t.test('a banned first word is found in every kind of comment', async (t) => {
  t.strictSame(words('/** What it does. */'), ['What'])
  t.strictSame(words('/**\n * Where it is.\n */'), ['Where'])
  t.strictSame(words('/* Nobody asks. */'), ['Nobody'])
  t.strictSame(words('// Only now.'), ['Only'])
  t.strictSame(words('const a = 1 // that it ends'), ['that'])
  t.strictSame(words("/** It's gone. */"), ['It'])
  t.strictSame(
    badOpenings('\n\n  // They\n').map(({ line }) => line),
    [3]
  )
})

t.test('a noun or a verb passes, and a word that only begins like a banned one', async (t) => {
  for (const fine of [
    '// Returns what it got.',
    '/** Items. */',
    '// Whatever',
    '/** `it` */',
    '// biome-ignore a: b',
    '//'
  ]) {
    t.strictSame(words(fine), [], fine)
  }
})

t.test('the following lines of a comment are not looked at', async (t) => {
  t.strictSame(words('// A timer.\n// It ends.'), [])
  t.strictSame(words('/**\n * A timer.\n * It ends.\n */'), [])
  t.strictSame(words('// A timer.\n\n// It ends.'), ['It'])
  t.strictSame(words('let a // a timer\n// It ends.'), ['It'])
})

t.test('strings, templates and regular expressions hold no comments', async (t) => {
  for (const source of [
    "'// It'",
    '"/* It */"',
    "'\\'// It'",
    '`// It`',
    `\`\n// It\n\${a}// It\``,
    `\`\${\`// It\`}// It\``,
    `\`\${{ a: "// It" }}// It\``,
    'a.replace(/[/*]\\/\\* It/g, b)',
    "return /'/.test(a)",
    '!/[\'"]/.test(a)',
    "a = b! / c + '// It'",
    "a[0] / b + '// It'"
  ]) {
    t.strictSame(texts(source), [], source)
  }
  t.strictSame(texts(`\`\${a /* It */}\``), ['It'])
  t.strictSame(texts("f(/'/) // It"), ['It'])
  t.strictSame(texts('a / b / c // It'), ['It'])
  t.strictSame(texts('const a = `$` // It'), ['It'])
})

t.test('a source that cannot be read is an error', async (t) => {
  t.throws(() => commentsOf("\nconst a = 'b"), { message: 'line 2: unclosed string' })
  t.throws(() => commentsOf(`\`\${a}`), { message: 'line 1: unclosed template' })
})
