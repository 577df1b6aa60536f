// Regular expressions of the configuration: they match like JavaScript's, in linear time.
import t from 'tap'
import { linearGroups, linearRegExp, linearSearch } from '../../config/linear-regexp.ts'

t.test('linearRegExp matches the same texts as RegExp', async (t) => {
  const atoms = [
    'a',
    'b',
    '.',
    '[ab]',
    '[^a]',
    '\\d',
    '\\.',
    '(a|b)',
    '(?:ab|b)',
    '(a*b)',
    '[a-c1]',
    '(a|)',
    '((a|b)+)'
  ]
  const quantifiers = ['', '*', '+', '?', '{2}', '{1,3}', '{0,2}', '{2,}', '+?']
  const texts = ['']
  for (let i = 0; i < 500 && texts.length < 500; i++) for (const c of 'ab1.') texts.push(texts[i] + c)
  const wrong: string[] = []
  for (const one of atoms) {
    for (const quantifier of quantifiers) {
      for (const other of atoms) {
        for (const pattern of [`${one}${quantifier}${other}`, `(${other}|${one})${quantifier}`]) {
          const mine = linearRegExp(`^${pattern}$`)
          const theirs = new RegExp(`^(?:${pattern})$`, 's')
          wrong.push(...texts.filter((text) => mine(text) !== theirs.test(text)).map((text) => `${pattern} ${text}`))
        }
      }
    }
  }
  t.strictSame(wrong, [])
})

t.test('the time is linear, however many ways there are to match', async (t) => {
  for (const pattern of ['^(a+)+b$', '^(a|a)*b$', '^a*a*a*a*b$', '^(a*)*b$', '^(.*.*.*)*b$']) {
    const test = linearRegExp(pattern)
    // Twice as many characters double the steps of a backtracking engine's at best; these would be over 2^10000.
    t.equal(test('a'.repeat(10_000)), false, pattern)
    t.equal(test(`${'a'.repeat(10_000)}b`), true, pattern)
  }
})

t.test('the error names the unsupported syntax', async (t) => {
  for (const [pattern, message] of [
    ['a$', /begin with "\^"/],
    ['^a', /end with "\$"/],
    ['^a$b', /may only stand at its end/],
    ['^(?=a)$', /"\(\?" other than/],
    ['^(?<name>a)$', /"\(\?" other than/],
    ['^(a)\\1$', /"\\1" is not supported/],
    ['^\\ba$', /"\\b" is not supported/],
    ['^(a$', /"\(" is not closed/],
    ['^a)$', /at "\)\$"/],
    ['^[a$', /"\[" is not closed/],
    ['^*$', /"\*" must be escaped/],
    ['^a**$', /a quantifier of a quantifier/],
    ['^a{3,2}$', /are reversed/],
    ['^[b-a]$', /are reversed/],
    ['^a\\', /at the end/],
    ['^(a{100}){100}$', /too large/],
    ['^((((a{9}){9}){9}){9}){9}$', /too large/]
  ] as const) {
    t.throws(() => linearRegExp(pattern), { name: 'SyntaxError', message }, pattern)
  }
})

t.test('linearGroups finds the groups that JavaScript finds, in linear time', async (t) => {
  const texts = ['', 'a', 'ab', 'aab', 'abab', '/a/b/c', '/users/12/x', 'a.b.c', 'aaa', 'xay']
  for (const pattern of [
    '^(a*)(a*)(.*)$',
    '^(a*?)(a*)(.*)$',
    '^(.*)/(.*)$',
    '^(.*?)/(.*)$',
    '^(?:(a)|(.))(.*)$',
    '^/users/(\\d+)(?:/(.*))?$',
    '^(a|ab)(b|c|)(.*)$',
    '^([^.]*)(?:\\.(.*))?$',
    '^(a{1,2})(a{0,2}?)(.*)$',
    '^((a)(b)?)(.*)$',
    '^(.+)(.)$',
    '^x(.)?y$'
  ]) {
    // biome-ignore format: a list
    const { count, match } = linearGroups(pattern)
    for (const text of texts) {
      const theirs = new RegExp(pattern, 's').exec(text)
      const expected = theirs === null ? null : Array.from({ length: count }, (_, at) => theirs[at + 1] ?? '')
      t.strictSame(match(text), expected, `${pattern} ${text}`)
    }
  }
  t.strictSame(linearGroups('^(.*)(.*)(.*)x$').match('a'.repeat(10_000)), null)
})

t.test('linearSearch finds what JavaScript finds', async (t) => {
  const texts = [
    '', 'a', 'ab', 'xaby', 'a\nb', '12', 'é', '😀', 'a.b', 'a|b', 'x$', '$', '^a', 'abc123', '\\', 'a-b', '2020-01-01', '\u2028'
  ] // biome-ignore format: a list
  const patterns = [
    'a', '^a', 'b$', '^a|b$', '^(a|b)+$', '.', '^.$', '^[^a]$', '\\d{2}', '^\\d+$', 'a.b', '^a\\nb$', '\\u00e9', '\\xe9', '\\$$', '[$|]',
    '^\\^a$', '(?:a|b)c', '^[a-z]{1,255}$', '\\\\$', '^\\d{4}-\\d{2}-\\d{2}$', '', '^$', '^[\\s\\S]*$', '[|]$|^x'
  ] // biome-ignore format: a list
  for (const pattern of patterns) {
    const [search, expression] = [linearSearch(pattern, () => {}), new RegExp(pattern, 'u')]
    t.strictSame(
      texts.filter(search),
      texts.filter((text) => expression.test(text)),
      pattern
    )
  }
  for (const pattern of ['^(?=a)b', '(a)\\1', '\\bx', '\\p{L}', 'a(^b)', 'a$b', '(a']) {
    t.throws(() => linearSearch(pattern, () => {}), SyntaxError, pattern)
  }
})

let seed = 1

/** Returns a text that is the same in each run. */
const randomText = (length: number, characters: string): string =>
  Array.from({ length }, () => {
    seed = (seed * 48271) % 2147483647
    return characters[seed % characters.length]
  }).join('')

t.test('linearSearch counts its work', async (t) => {
  let work = 0
  const spend = (more: number) => {
    work += more
  }
  const workOf = (search: (text: string) => boolean, text: string) => {
    work = 0
    search(text)
    return work
  }
  const few = linearSearch('(a?){50}b', spend)
  const first = workOf(few, 'a'.repeat(100))
  t.ok(first > 500, `${first}`)
  t.equal(workOf(few, 'a'.repeat(100)), 25, 'a step between sets of states that are known costs little')
  // 2^12 sets of states: they are not all kept.
  const many = linearSearch('a[ab]{12}$', spend)
  t.ok(workOf(many, randomText(4000, 'ab')) > 4000)
  const message = 'enough'
  const limited = linearSearch('^[a-z]{1,500}x', () => {
    throw new Error(message)
  })
  for (const _ of [1, 2]) t.throws(() => limited('abc'), { message })
})

t.test('linearSearch matches alike while it keeps sets of states, and once there are too many', async (t) => {
  for (const pattern of ['a[ab]{12}$', '^(?:a|b)*a(?:a|b){9}$', '(?:é[abé]{8}|😀)b$', '^[ab]*$']) {
    const [search, expression] = [linearSearch(pattern, () => {}), new RegExp(pattern, 'u')]
    const found = new Set<boolean>()
    for (let round = 0; round < 400; round++) {
      const text = randomText((round * 7) % (round < 200 ? 30 : 1500), round % 2 === 0 ? 'aaabbb' : 'aaabbbé')
      const expected = expression.test(text)
      found.add(expected)
      if (search(text) !== expected) t.fail(`${pattern} ${text}`)
    }
    t.equal(found.size, 2, pattern)
  }
})
