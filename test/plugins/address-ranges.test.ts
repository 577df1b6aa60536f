// Sets of addresses: every spelling of an address, CIDR ranges, and agreement with a list that is searched one by one.
import { BlockList, isIPv4 } from 'node:net'
import t from 'tap'
import { AddressSet, parseAddress, parseRange } from '../../plugins/address-ranges.ts'

const setOf = (...ranges: string[]) => new AddressSet(ranges.map(parseRange))
const has = (set: AddressSet, text: string) => set.has(parseAddress(text)!)

t.test('spellings of one address are one address', async (t) => {
  for (const spellings of [
    ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:C000:201', '0:0:0:0:0:ffff:c000:0201', '0:0:0:0:0:FFFF:192.0.2.1'],
    ['2001:db8::1', '2001:DB8:0:0:0:0:0:1', '2001:0db8::0001', '2001:db8:0::0.0.0.1', '2001:db8::1%eth0'],
    ['::', '0:0:0:0:0:0:0:0', '0::', '::0', '::0.0.0.0'],
    ['fe80::', 'fe80:0:0::', 'fe80::0%lo']
  ]) {
    for (const spelling of spellings) t.equal(parseAddress(spelling), parseAddress(spellings[0]!), spelling)
  }
  t.not(parseAddress('::192.0.2.1'), parseAddress('192.0.2.1'), 'the deprecated IPv4-compatible form is IPv6')
})

t.test('other texts are no addresses', async (t) => {
  const texts = [
    '',
    'unknown',
    '_x',
    '192.0.2',
    '192.0.2.256',
    '0192.0.2.1',
    '192.0.2.01',
    '0x7f.0.0.1',
    '3221225985',
    ':',
    ':::'
  ]
  for (const text of [
    ...texts,
    '1::2::3',
    '12345::',
    '[::1]',
    '192.0.2.1:80',
    ' 192.0.2.1',
    '::ffff:192.0.2.256',
    '%',
    '1.2.3.4%x'
  ]) {
    t.equal(parseAddress(text), null, text)
  }
})

t.test('a range has its addresses and no others', async (t) => {
  for (const [range, inside, outside] of [
    ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255', '::ffff:10.1.2.3'], ['9.255.255.255', '11.0.0.0', '::10.1.2.3']],
    ['192.0.2.1', ['192.0.2.1', '::ffff:c000:201'], ['192.0.2.0', '192.0.2.2']],
    ['192.0.2.1/32', ['192.0.2.1'], ['192.0.2.0', '192.0.2.2']],
    ['0.0.0.0/0', ['0.0.0.0', '255.255.255.255', '::ffff:0:0'], ['::', '::1']],
    ['::/0', ['::', '::1', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'], ['0.0.0.0', '192.0.2.1', '::ffff:192.0.2.1']],
    ['::ffff:0:0/96', ['0.0.0.0', '255.255.255.255'], ['::', '::1']],
    ['::ffff:10.0.0.0/104', ['10.0.0.0', '10.255.255.255'], ['11.0.0.0']],
    ['2001:db8::/32', ['2001:db8::', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'], ['2001:db7:ffff::', '2001:db9::']],
    ['2001:db8::/127', ['2001:db8::', '2001:db8::1'], ['2001:db8::2']],
    ['128.0.0.0/1', ['128.0.0.0', '255.255.255.255'], ['127.255.255.255']]
  ] as const) {
    for (const address of inside) t.ok(has(setOf(range), address), `${address} in ${range}`)
    for (const address of outside) t.notOk(has(setOf(range), address), `${address} not in ${range}`)
  }
  t.notOk(has(setOf(), '192.0.2.1'), 'an empty set has none')
})

t.test('malformed ranges have a message that says how to write them', async (t) => {
  for (const [text, message] of [
    ['10.0.0.1/8', '"10.0.0.1/8" is an address within a network: write "10.0.0.0/8", or the address without "/8"'],
    [
      '2001:db8::1/32',
      '"2001:db8::1/32" is an address within a network: write "2001:db8::/32", or the address without "/32"'
    ],
    [
      '::ffff:10.0.0.1/104',
      '"::ffff:10.0.0.1/104" is an address within a network: write "10.0.0.0/8", or the address without "/104"'
    ],
    ['10.0.0.0/33', '"10.0.0.0/33" is not a CIDR range: "/" is followed by a number from 0 to 32'],
    ['::/129', '"::/129" is not a CIDR range: "/" is followed by a number from 0 to 128'],
    ['::ffff:0:0/90', '"::ffff:0:0/90" is not a CIDR range: "/" is followed by a number from 96 to 128'],
    ...['10.0.0.0/', '10.0.0.0/x', '10.0.0.0/-1', '10.0.0.0/1e1', '10.0.0.0/ 8'].map(
      (text) => [text, `"${text}" is not a CIDR range: "/" is followed by a number from 0 to 32`] as const
    ),
    ...['', '/8', '10.0.0.0/8/8', 'a.example', '10.0.0', 'fe80::1%eth0', '10.0.0.*', '10.0.0.0-10.0.0.9'].map(
      (text) => [text, `"${text}" is not an address or a CIDR range, such as 192.0.2.0/24`] as const
    )
  ] as const) {
    t.throws(() => parseRange(text), { message }, text)
  }
})

t.test('a set with 10,000 ranges of both families agrees with a list that is searched one by one', async (t) => {
  // A linear congruential generator, so that a failure can be repeated.
  let state = 7
  const random = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * below)
  }
  const v4 = () => `10.${random(8)}.${random(256)}.${random(256)}`
  const v6 = () => `2001:db8:${random(16).toString(16)}:${random(65536).toString(16)}::${random(65536).toString(16)}`
  const list = new BlockList()
  const ranges = Array.from({ length: 10_000 }, (_, index) => {
    const address = index % 2 === 0 ? v4() : v6()
    const type = isIPv4(address) ? 'ipv4' : 'ipv6'
    const bits = type === 'ipv4' ? 20 + random(13) : 56 + random(73)
    list.addSubnet(address, bits, type)
    const { message } = attempt(`${address}/${bits}`)
    // The message of an address within a network has the network.
    return /write "([^"]+)"/.exec(message)?.[1] ?? `${address}/${bits}`
  })
  const set = setOf(...ranges)
  let found = 0
  for (let i = 0; i < 5000; i++) {
    const address = i % 2 === 0 ? v4() : v6()
    const expected = list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6')
    if (expected) found++
    if (has(set, address) !== expected) t.fail(`${address}: expected ${expected}`)
  }
  t.ok(found > 100 && found < 4900, `${found} of 5000 addresses are in the set`)
})

function attempt(text: string): { message: string } {
  try {
    parseRange(text)
    return { message: '' }
  } catch (error) {
    return error as Error
  }
}

t.test('a set covers a range only if it has all of its addresses', async (t) => {
  const set = setOf('10.0.0.0/25', '10.0.0.128/25', '10.0.2.0/24', '2001:db8::/33', '2001:db8:8000::/33')
  for (const [range, expected] of [
    ['10.0.0.0/24', true],
    ['10.0.0.0/23', false],
    ['10.0.2.128/25', true],
    ['2001:db8::/32', true],
    ['2001:db8::/31', false],
    ['0.0.0.0/0', false]
  ] as const) {
    t.equal(set.covers(parseRange(range)), expected, range)
  }
})
