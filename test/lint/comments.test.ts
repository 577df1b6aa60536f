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

t.test('strings and regular expressions hold no comments', async (t) => {
  for (const source of [
    "'// It'",
    '"/* It */"',
    "f('a // It')",
    '`// It`',
    `f(\`\${a} // It\`)`,
    'a.replace(/[/*]\\/\\* It/g, b)',
    "if (a) /it's/.test(a)",
    "a = b! / c + '// It'"
  ]) {
    t.strictSame(texts(source), [], source)
  }
  t.strictSame(texts(`\`\${a /* It */}\``), [], 'passed over because of the quote')
  t.strictSame(texts('f(a /* It */)'), ['It'])
  t.strictSame(texts("f(/'/) // It"), ['It'])
  t.strictSame(texts("if (a) /it's/.test(a) // It"), ['It'])
  t.strictSame(texts('a / b / c // It'), ['It'])
})
