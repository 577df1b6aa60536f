/** Matches addresses against addresses and ranges (CIDR). */
import { BlockList, isIP, isIPv6 } from 'node:net'
import { unmapped } from '../plugins/http-syntax.ts'

/** Returns the test for addresses in one of the ranges. Other texts, such as the empty one of a Unix socket, are in none. */
export function addressTest(ranges: readonly string[]): (address: string) => boolean {
  if (ranges.length === 0) return () => false
  const list = new BlockList()
  for (const range of ranges) {
    const [address, bits] = range.split('/') as [string, string | undefined]
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return (address) => {
    const plain = unmapped(address)
    return isIP(plain) !== 0 && list.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
}
