/** Normalises and checks `listen`, which is one mapping or a list of listeners. */
import { isDeepStrictEqual } from 'node:util'
import type { Steps } from '../plugins/time-slices.ts'
import { checkTls } from './check-tls.ts'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import type { Listen, Written } from './schema.ts'

/** Keys that apply to the whole gateway. The value of the first listener that has one is used for all. */
const shared = ['paths', 'unknownHost', 'drain'] as const

/** Sets `listeners` from the valid items of `listen`; `listen` becomes the first of them. */
export function normalizeListeners(data: Written, report: Report): void {
  const written: unknown = data.listen
  const entries = Array.isArray(written) ? written.map((entry, index) => ({ entry, at: `/listen/${index}` })) : null
  const usable = (entries ?? [{ entry: written, at: '/listen' }]).filter(({ at }) => report.usable(at))
  const listeners = usable.map(({ entry, at }) => ({ ...(entry as Listen), at }))
  for (const key of shared) share(key, listeners, report)
  const [first] = listeners
  Object.assign(data, { listeners, ...(first !== undefined && { listen: first }) })
}

function share(key: (typeof shared)[number], listeners: Listen[], report: Report): void {
  const having = listeners.filter(({ at }) => report.at(`${at}/${key}`) !== undefined)
  const [first] = having
  if (first === undefined) return
  for (const listener of listeners) {
    const contradicts = having.includes(listener) && !isDeepStrictEqual(listener[key], first[key])
    if (contradicts && report.sound(`${listener.at}/${key}`) && report.sound(`${first.at}/${key}`)) {
      const message = `contradicts ${report.pathOf(`${first.at}/${key}`)}: it applies to all listeners; set it once`
      report.fault(`${listener.at}/${key}`, message, 'key')
    }
    Object.assign(listener, { [key]: first[key] })
  }
}

/** Returns whether no listener has a fault in a key. */
export function areSound({ data, report }: Checked, key: keyof Listen): boolean {
  const { listeners = [] } = data
  return report.usable('/listen') && listeners.length > 0 && listeners.every(({ at }) => report.sound(`${at}/${key}`))
}

/** Removes the listeners that are switched off, once all are checked. */
export function removeDisabled(data: Written): void {
  const listeners = data.listeners.filter(({ enabled }) => enabled)
  Object.assign(data, { listeners, listen: listeners[0] })
}

export function* checkListeners(checked: Checked): Steps<void> {
  const { data, report } = checked
  const { listeners } = data
  if (listeners.length > 0 && listeners.every(({ enabled }) => !enabled)) {
    report.fault('/listen', 'no listener is on: set enabled: true for one of them')
  }
  for (const [index, listener] of listeners.entries()) {
    checkAddress(listener, listeners.slice(0, index), checked)
    checkRedirect(listener, checked)
    checkConnect(listener, checked)
    yield* checkListener(listener, checked)
  }
}

function* checkListener({ at, path, trustProxy, tls, connect, http2 }: Listen, checked: Checked): Steps<void> {
  const { report } = checked
  if (report.sound(`${at}/trustProxy`)) {
    trustProxy.forEach((range, index) => {
      const place = pointer(`${at}/trustProxy`, index)
      if (range === 'unix' && path === undefined)
        report.fault(place, '"unix" is only for a listener on a Unix socket ("path")')
      if (!/\/0+$/.test(range)) return
      const message = `${range} trusts every client; list only the proxies in front of the gateway`
      report.fault(place, message)
    })
  }
  if (!report.sound(`${at}/tls`)) return
  const isPlain = tls === undefined && connect === undefined && report.sound(`${at}/connect`)
  if (isPlain && report.usable(`${at}/http2`) && http2 === true) {
    report.fault(`${at}/http2`, `HTTP/2 is negotiated during the TLS handshake, so it needs ${report.pathOf(at)}.tls`)
  }
  if (tls !== undefined) yield* checkTls(`${at}/tls`, tls, checked)
}

/** Checks the listener of services in the mesh. */
function checkConnect({ at, connect, tls, path, trustHeaders }: Listen, { report, keys }: Checked): void {
  const place = `${at}/connect`
  if (connect === undefined || !report.sound(place)) return
  if (tls !== undefined) {
    report.fault(place, 'the certificate of the mesh is used instead of "tls"; set only one of the two', 'key')
  }
  if (keys.withoutMesh) {
    report.fault(place, 'its certificate and callers need the mesh: use "tls", or remove "mesh: false"', 'key')
  }
  if (path !== undefined) report.fault(place, 'other services cannot reach a Unix socket ("path")', 'key')
  const spoofable = trustHeaders.indexOf('x-forwarded-client-cert')
  if (spoofable !== -1 && report.sound(`${at}/trustHeaders`)) {
    const message = 'the gateway sets this header itself from the certificate of the caller'
    report.fault(pointer(`${at}/trustHeaders`, spoofable), message)
  }
}

function checkRedirect({ at, redirect, tls, connect }: Listen, { data: { listeners }, report }: Checked): void {
  const place = `${at}/redirect`
  if (redirect === undefined || !report.sound(place)) return
  if (tls !== undefined || connect !== undefined)
    report.fault(place, 'this listener uses TLS, so its requests are https already', 'key')
  if (redirect !== 'https' && redirect.port !== undefined) return
  if (listeners.some((listener) => listener.tls !== undefined && listener.path === undefined)) return
  report.fault(place, 'no listener with a port uses TLS; set the port of the redirect: { to: https, port: 443 }', 'key')
}

function checkAddress(listener: Listen, others: readonly Listen[], checked: Checked): void {
  const { report, data } = checked
  const { at, name, path, host, port } = listener
  const named = others.find((other) => other.name === name)
  if (named !== undefined && report.usable(`${at}/name`)) {
    report.fault(`${at}/name`, `duplicate listener name "${name}"; ${report.pathOf(named.at)} has it, too`)
  }
  if (path === undefined) {
    if (report.at(`${at}/socketMode`) !== undefined) {
      report.fault(`${at}/socketMode`, 'no effect without "path", the path of a Unix socket', 'key')
    }
    if (!['host', 'port'].every((key) => report.usable(`${at}/${key}`)) || port === 0) return
    if (report.unknownKeyIn(at)) return
    if (!listener.enabled) return
    const taken = others.find(
      (other) => other.enabled && other.path === undefined && other.port === port && overlap(other.host, host)
    )
    if (taken !== undefined) {
      report.fault(`${at}/port`, `${report.pathOf(taken.at)}.port is ${port}, too, and ${host} overlaps ${taken.host}`)
    }
    const { admin } = data
    if (!['/admin/host', '/admin/port'].every((key) => report.usable(key)) || admin === false) return
    if (admin.port === port && overlap(admin.host, host)) {
      report.fault('/admin/port', `${report.pathOf(at)}.port is ${port}, too, and ${admin.host} overlaps ${host}`)
    }
    return
  }
  const address = (['host', 'port'] as const).find((key) => report.at(`${at}/${key}`) !== undefined)
  if (address !== undefined) {
    report.fault(`${at}/${address}`, 'a listener has an address or a Unix socket ("path"), not both', 'key')
  }
  if (!report.usable(`${at}/path`)) return
  const length = Buffer.byteLength(checked.absolute(path))
  if (length > longestPath)
    report.fault(`${at}/path`, `longer than ${longestPath} bytes, which is the maximum for the path of a Unix socket`)
  const taken = others.find(
    (other) => other.enabled && other.path !== undefined && checked.absolute(other.path) === checked.absolute(path)
  )
  if (taken !== undefined && listener.enabled)
    report.fault(`${at}/path`, `${report.pathOf(taken.at)} has the same path`)
}

/** Maximum bytes of a socket path: `sun_path` on the system with the shortest one, without the final NUL. */
const longestPath = 103

/** Returns whether listeners at the two hosts cannot have the same port. */
export function overlap(a: string, b: string): boolean {
  const every = ['0.0.0.0', '::', '']
  const loopback = ['127.0.0.1', '::1', 'localhost']
  return a === b || every.includes(a) || every.includes(b) || (loopback.includes(a) && loopback.includes(b))
}
