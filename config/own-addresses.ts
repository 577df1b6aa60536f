/** Addresses of calls at which the process itself listens: such a call would come back without end. */
import { BlockList, isIP } from 'node:net'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import type { Written } from './schema.ts'

/** The address of a listener, and the place of the listener in the file. */
export interface Listening {
  readonly at: string
  readonly host: string
  readonly port: number | undefined
}

/** Addresses of this machine. A list knows the IPv4-mapped forms of its addresses, too. */
const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8)
loopback.addAddress('::1', 'ipv6')
/** A listener there accepts calls to all addresses; a call to them is one to loopback. */
const unspecified = new BlockList()
unspecified.addAddress('0.0.0.0')
unspecified.addAddress('::', 'ipv6')

/** Returns a host as in URLs: lower case, IPv6 addresses in their shortest form and in brackets. */
function normalized(host: string): string {
  const text = isIP(host) === 6 ? `[${host.replace(/%.*/, '')}]` : host
  const url = `http://${text.replace(/\.$/, '')}`
  return URL.canParse(url) ? new URL(url).hostname : text
}

function isIn(list: BlockList, host: string): boolean {
  const address = normalized(host).replace(/^\[|\]$/g, '')
  const version = isIP(address)
  return version !== 0 && list.check(address, version === 6 ? 'ipv6' : 'ipv4')
}

/** Returns whether only this machine can connect to a listener at the host. */
export const isLoopback = (host: string): boolean => /(^|\.)localhost$/.test(normalized(host)) || isIn(loopback, host)

/** Returns whether a call to the host reaches a listener at loopback. The empty host stands for all addresses. */
const isLocal = (host: string) => host === '' || isLoopback(host) || isIn(unspecified, host)

/** Reports an address at which one of the listeners listens. `who`: the kind of the process. */
export function checkOwnAddress(
  at: string,
  text: string,
  who: 'gateway' | 'sidecar',
  listeners: readonly Listening[],
  report: Report
): void {
  if (!report.sound(at)) return
  const { hostname, port, protocol } = new URL(text)
  const wanted = Number(port || (protocol === 'https:' ? 443 : 80))
  const own = listeners.find((listener) => {
    if (listener.port !== wanted) return false
    return (isLocal(listener.host) && isLocal(hostname)) || normalized(listener.host) === normalized(hostname)
  })
  if (own !== undefined) report.fault(at, `this ${who} itself listens there, by ${report.pathOf(own.at)}`)
}

/** Checks the addresses of services in the file: `instances` and `sidecar`. */
export function checkOwnAddresses(
  data: Written,
  who: 'gateway' | 'sidecar',
  listeners: readonly Listening[],
  report: Report
): void {
  if (!report.usable('/services')) return
  const check = (at: string, text: string) => checkOwnAddress(at, text, who, listeners, report)
  for (const [name, service] of Object.entries(data.services)) {
    const place = pointer('/services', name)
    if (!report.usable(place)) continue
    if (service.sidecar !== undefined) check(`${place}/sidecar`, service.sidecar)
    const at = `${place}/instances`
    if (!report.sound(at)) continue
    service.instances?.forEach((instance, index) => {
      if (typeof instance === 'string') check(pointer(at, index), instance)
      else check(pointer(at, index, 'url'), instance.url)
    })
  }
}

/** Checks the addresses to which a gateway forwards, against those of `listen` whose port is in the file. */
export function checkGatewayAddresses(data: Written, report: Report): void {
  if (!report.usable('/listen')) return
  const listeners = data.listeners.filter(({ at, enabled, path }) => {
    // An embedded gateway leaves `listen` out: its default port is not in use then.
    const isWritten = enabled && path === undefined && report.at(`${at}/port`) !== undefined
    return isWritten && ['host', 'port'].every((key) => report.sound(`${at}/${key}`))
  })
  checkOwnAddresses(data, 'gateway', listeners, report)
  const shared = data.forward?.sidecar
  if (shared !== undefined && report.usable('/forward')) {
    checkOwnAddress('/forward/sidecar', shared, 'gateway', listeners, report)
  }
}
