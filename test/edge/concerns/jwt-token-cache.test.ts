/** The cache of verified tokens: entries last until the token expires, and their number is bounded. */
import t from 'tap'
import { TokenCache } from '../../../plugins/edge/concerns/jwt/token-cache.ts'

t.test('a token is cached until it expires, no other token is', async (t) => {
  const cache = new TokenCache<string>(10)
  cache.set('a.b.c', 'alice', 1000)
  t.equal(cache.get('a.b.c', 999), 'alice')
  t.equal(cache.get('a.b.d', 999), undefined)
  t.equal(cache.get('', 999), undefined)
  t.equal(cache.get('a.b.c', 1000), undefined)
  t.equal(cache.get('a.b.c', 0), undefined, 'removed')
})

t.test('a token that ends as another one is another token', async (t) => {
  const cache = new TokenCache<string>(10)
  const end = 'the end of a signature'
  cache.set(`a.${end}`, 'alice', 1000)
  t.equal(cache.get(`b.${end}`, 0), undefined)
  t.equal(cache.get(end, 0), undefined)
  t.equal(cache.get(`a.${end}`, 0), 'alice')
  cache.set(`b.${end}`, 'bob', 1000)
  t.equal(cache.get(`b.${end}`, 0), 'bob')
  t.equal(cache.get(`a.${end}`, 0), undefined, 'it has the later one')
})

t.test('the least recently used token is evicted', async (t) => {
  const cache = new TokenCache<number>(1000)
  for (let i = 0; i < 1000; i++) cache.set(`token ${i}`, i, 1)
  t.equal(cache.get('token 0', 0), 0)
  cache.set('token 1000', 1000, 1)
  t.equal(cache.get('token 0', 0), 0, 'a recently used token is kept')
  t.equal(cache.get('token 1', 0), undefined)
  cache.set('token 1000', 1001, 1)
  t.equal(cache.get('token 1000', 0), 1001)
  t.equal(cache.get('token 2', 0), 2, 'the same token again evicts nothing')
})

t.test('the cache is bounded in bytes', async (t) => {
  const cache = new TokenCache<number>(1_000_000)
  const mb = 'x'.repeat(1024 * 1024)
  for (let i = 0; i < 40; i++) cache.set(`${mb}${i}`, i, 1)
  const known = Array.from({ length: 40 }, (_, i) => cache.get(`${mb}${i}`, 0)).filter((value) => value !== undefined)
  t.equal(known.length, 31, 'less than 32 MB of tokens')
  t.equal(known.at(-1), 39)
  cache.set('x'.repeat(33 * 1024 * 1024), 7, 1)
  t.equal(cache.get(`${mb}39`, 0), 39, 'a token larger than the cache is not stored')
})

t.test('with a size of zero, nothing is stored', async (t) => {
  const cache = new TokenCache<number>(0)
  cache.set('token', 1, 1)
  t.equal(cache.get('token', 0), undefined)
})
