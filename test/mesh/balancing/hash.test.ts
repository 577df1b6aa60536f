/** The hash: the reference's vectors, and the spread of similar keys. */
import t from 'tap'
import { hash32, mix32 } from '../../../plugins/mesh/balancing/hash.ts'
import { chiSquare } from '../../helpers/mesh/instances.ts'

t.test("MurmurHash3's vectors, two bytes to a character", async (t) => {
  t.equal(hash32(''), 0)
  t.equal(hash32('', 1), 0x514e28b7)
  t.equal(hash32('', 0xffffffff), 0x81f16f39)
  t.equal(hash32('\uffff\uffff'), 0x76293b50)
  t.equal(hash32('\u4321\u8765'), 0xf55b516b)
  t.equal(hash32('\u4321\u8765', 0x5082edee), 0x2362f9de)
  t.equal(hash32('\u4321'), 0xa0f7b07a)
  t.equal(hash32('\0\0'), 0x2362f9de)
  t.equal(hash32('\0'), 0x30f4c306)
})

t.test('similar keys are spread evenly', async (t) => {
  const families: Record<string, (i: number) => string> = {
    numbers: String,
    'user-n': (i) => `user-${i}`,
    addresses: (i) => `10.0.${i >> 8}.${i & 255}`,
    'last of long ones': (i) => `${'x'.repeat(60)}${String(i).padStart(6, '0')}`
  }
  for (const [name, keyOf] of Object.entries(families)) {
    for (const slots of [10, 64]) {
      const counts = new Array<number>(slots).fill(0)
      for (let i = 0; i < 20_000; i++) counts[Math.floor((hash32(keyOf(i)) / 2 ** 32) * slots)]!++
      const chi = chiSquare(counts, new Array(slots).fill(1))
      // The 99.9th percentiles for 9 and 63 degrees of freedom.
      t.ok(chi < (slots === 10 ? 27.9 : 103.4), `${name} over ${slots}: ${chi}`)
    }
  }
})

t.test('the finalizer is a bijection, so the points of an instance differ', async (t) => {
  const seen = new Set<number>()
  for (let i = 0; i < 100_000; i++) seen.add(mix32(i * 0x9e3779b1))
  t.equal(seen.size, 100_000)
})
