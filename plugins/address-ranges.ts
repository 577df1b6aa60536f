/** Sets of IP addresses, given as addresses and CIDR ranges. Finding an address takes one binary search. */
import { isIPv4, isIPv6 } from 'node:net'

/** An IPv4 address is a number, an IPv6 address a bigint. IPv4-mapped IPv6 addresses are IPv4. */
export type Address = number | bigint

export interface AddressRange {
  readonly first: Address
  /** Of the same type as `first`. */
  readonly last: Address
}

const mappedPrefix = 0xffffn
const mappedBits = 96

/** Parses an address; null for other texts. The zone of an IPv6 address is ignored. */
export function parseAddress(text: string): Address | null {
  if (isIPv4(text)) return ipv4(text)
  const [address = ''] = text.split('%')
  if (!isIPv6(address)) return null
  const value = ipv6(address)
  return value >> 32n === mappedPrefix ? Number(value & 0xffffffffn) : value
}

function ipv4(text: string): number {
  let value = 0
  for (const part of text.split('.')) value = value * 256 + Number(part)
  return value
}

function ipv6(text: string): bigint {
  const [head = '', tail = ''] = text.split('::')
  const [left, right] = [groupsOf(head), groupsOf(tail)]
  const zeros = '0000'.repeat(8 - (left.length + right.length) / 4)
  return BigInt(`0x${left}${zeros}${right}`)
}

/** Returns the groups of an IPv6 address in four digits each. The last two may be written as an IPv4 address. */
function groupsOf(text: string): string {
  if (text === '') return ''
  const hex = (group: string) =>
    group.includes('.') ? ipv4(group).toString(16).padStart(8, '0') : group.padStart(4, '0')
  return text.split(':').map(hex).join('')
}

/** Parses an address or a CIDR range. Throws an error that says how to write it. */
export function parseRange(text: string): AddressRange {
  const [address = '', length, ...rest] = text.split('/')
  const value = address.includes('%') || rest.length > 0 ? null : parseAddress(address)
  if (value === null) throw new Error(`"${text}" is not an address or a CIDR range, such as 192.0.2.0/24`)
  if (length === undefined) return { first: value, last: value }
  const [fewest, most] = typeof value === 'bigint' ? [0, 128] : address.includes(':') ? [mappedBits, 128] : [0, 32]
  const bits = /^\d{1,3}$/.test(length) ? Number(length) : -1
  if (bits < fewest || bits > most) {
    throw new Error(`"${text}" is not a CIDR range: "/" is followed by a number from ${fewest} to ${most}`)
  }
  const hostBits = most - bits
  const network = roundedDown(value, hostBits)
  if (network !== value) {
    const whole = `${textOf(network)}/${bits - fewest}`
    throw new Error(`"${text}" is an address within a network: write "${whole}", or the address without "/${bits}"`)
  }
  const last = typeof value === 'number' ? value + 2 ** hostBits - 1 : value + (1n << BigInt(hostBits)) - 1n
  return { first: value, last }
}

/** Returns the address with its last bits set to 0. */
function roundedDown(value: Address, bits: number): Address {
  if (typeof value === 'bigint') return (value >> BigInt(bits)) << BigInt(bits)
  return Math.floor(value / 2 ** bits) * 2 ** bits
}

function textOf(value: Address): string {
  if (typeof value === 'number') return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.')
  const digits = value.toString(16).padStart(32, '0')
  const groups = (digits.match(/.{4}/g) ?? []).map((group) => Number.parseInt(group, 16).toString(16))
  // The URL parser writes the shortest form.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
}

export class AddressSet {
  readonly #v4: Intervals<number>
  readonly #v6: Intervals<bigint>

  constructor(ranges: readonly AddressRange[]) {
    const isOfType = (type: 'number' | 'bigint') => (range: AddressRange) => typeof range.first === type
    this.#v4 = new Intervals(ranges.filter(isOfType('number')) as Interval<number>[])
    this.#v6 = new Intervals(ranges.filter(isOfType('bigint')) as Interval<bigint>[])
  }

  has(address: Address): boolean {
    return this.covers({ first: address, last: address })
  }

  /** Returns whether the set has all addresses of a range. */
  covers({ first, last }: AddressRange): boolean {
    if (typeof first === 'number') return this.#v4.covers(first, last as number)
    return this.#v6.covers(first, last as bigint)
  }
}

interface Interval<T> {
  readonly first: T
  readonly last: T
}

/** Intervals in order, which neither overlap nor touch. */
class Intervals<T extends number | bigint> {
  readonly #firsts: T[] = []
  readonly #lasts: T[] = []

  constructor(intervals: readonly Interval<T>[]) {
    const inOrder = intervals.toSorted((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
    for (const { first, last } of inOrder) {
      const end = this.#lasts.length - 1
      // Addresses are whole numbers: intervals whose difference is 1 touch.
      if (end >= 0 && Number(first - this.#lasts[end]!) <= 1) {
        if (last > this.#lasts[end]!) this.#lasts[end] = last
      } else {
        this.#firsts.push(first)
        this.#lasts.push(last)
      }
    }
  }

  covers(first: T, last: T): boolean {
    let low = 0
    let high = this.#firsts.length
    // Finds the number of intervals that begin at `first` or before it.
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#firsts[middle]! <= first) low = middle + 1
      else high = middle
    }
    return low > 0 && last <= this.#lasts[low - 1]!
  }
}
