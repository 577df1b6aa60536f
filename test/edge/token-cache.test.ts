/** What is remembered of verified tokens: until they expire, and never without bound. */
import t from 'tap'
import { TokenCache } from '../../plugins/edge/token-cache.ts'

t.test('a token is known until it expires, and no other is', async (t) => {
  const cache = new TokenCache<string>()
  cache.set('a.b.c', 'alice', 1000)
  t.equal(cache.get('a.b.c', 999), 'alice')
  t.equal(cache.get('a.b.d', 999), undefined)
  t.equal(cache.get('', 999), undefined)
  t.equal(cache.get('a.b.c', 1000), undefined)
  t.equal(cache.get('a.b.c', 0), undefined, 'forgotten for good')
})

t.test('the oldest makes room', async (t) => {
  const cache = new TokenCache<number>()
  for (let i = 0; i <= 1000; i++) cache.set(`token ${i}`, i, 1)
  t.equal(cache.get('token 0', 0), undefined)
  t.equal(cache.get('token 1', 0), 1)
  t.equal(cache.get('token 1000', 0), 1000)
})
