/** Lists of addresses and CIDR ranges in the options of concerns, and the address of a request to look up in them. */
import type { FastifyRequest } from 'fastify'
import type { Report } from '../../../config/faults.ts'
import { pointer } from '../../../config/faults.ts'
import type { Config } from '../../../config/schema.ts'
import type { Address, AddressRange } from '../../address-ranges.ts'
import { AddressSet, parseAddress, parseRange } from '../../address-ranges.ts'
import { clientAddressOf } from './client-address.ts'
import { byListener } from './peers.ts'

/** Entry of a list for requests at a Unix socket without a forwarded address. */
export const unix = 'unix'

/** Address of a request; null if it is unknown or unreadable. */
export type RequestAddress = Address | typeof unix | null

/**
 * Returns the function for the address of a request: the client's address, as `listen.trustProxy` decides, or that of the
 * connection (`peer`).
 */
export function addressReader(
  config: Pick<Config, 'listeners'>,
  by: 'client' | 'peer' = 'client'
): (request: FastifyRequest) => RequestAddress {
  const isUnixOf = byListener(config, ({ path }) => path !== undefined)
  return (request) => {
    // The client's address on arrival: later, the connection may be closed and its address unknown.
    const text = by === 'peer' ? request.raw.socket.remoteAddress : clientAddressOf(request)
    if (!text && isUnixOf(request.raw)) return unix
    return parseAddress(text ?? '')
  }
}

export class AddressList {
  readonly #hasUnix: boolean
  readonly #set: AddressSet

  constructor(texts: readonly string[]) {
    this.#hasUnix = texts.includes(unix)
    this.#set = new AddressSet(texts.filter((text) => text !== unix).map(parseRange))
  }

  has(address: Exclude<RequestAddress, null>): boolean {
    return address === unix ? this.#hasUnix : this.#set.has(address)
  }

  /** Returns whether the list has all addresses of an entry. */
  covers(text: string): boolean {
    return text === unix ? this.#hasUnix : this.#set.covers(parseRange(text))
  }
}

/** An entry of a list in the configuration. */
interface Entry extends AddressRange {
  readonly at: string
  readonly text: string
}

/** Returns the well-formed ranges of a list, and reports the others. */
export function checkedRanges(texts: readonly string[], at: string, report: Report): Entry[] {
  return texts.flatMap((text, index) => {
    if (text === unix) return []
    try {
      return { ...parseRange(text), at: pointer(at, index), text }
    } catch (error) {
      report.fault(pointer(at, index), (error as Error).message)
      return []
    }
  })
}
