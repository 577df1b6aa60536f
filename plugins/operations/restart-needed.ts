import { pointer, segmentsOf } from '../../config/faults.ts'
import type { Config, Listen } from '../../config/schema.ts'

type Read<T> = (of: T) => unknown

/** Options of a listener that only a restart can change: sockets are bound, and Node reads some limits once. */
const ofListener: readonly (readonly [key: string, read: Read<Listen>])[] = [
  ['host', ({ host }) => host],
  ['port', ({ port }) => port],
  ['path', ({ path }) => path],
  ['socketMode', ({ socketMode }) => socketMode],
  // Settings within `tls` can change; only its presence needs a restart.
  ['tls', ({ tls }) => tls !== undefined],
  // Its service can change.
  ['connect', ({ connect }) => connect !== undefined],
  ['http2', ({ http2 }) => http2],
  ['limits/headers', ({ limits }) => limits.headers]
]

/** Options of the admin port. Only the first difference is reported: a disabled port has no address, either. */
const ofAdmin: readonly (readonly [pointer: string, read: Read<Config>])[] = [
  ['/admin', ({ admin }) => admin !== false],
  ['/admin/host', ({ admin }) => (admin || null)?.host],
  ['/admin/port', ({ admin }) => (admin || null)?.port]
]

/** Returns the pointers to the keys whose change cannot be applied to a running process. */
export function restartNeeded(before: Config, after: Config): string[] {
  if (before.isSidecar !== after.isSidecar) return ['/sidecar']
  const admin = ofAdmin.find(([, read]) => read(before) !== read(after))?.[0]
  return [...listenersOf(before.listeners, after.listeners), ...(admin === undefined ? [] : [admin])]
}

/** Compares listeners by their names; their order does not matter. */
function listenersOf(before: readonly Listen[], after: readonly Listen[]): string[] {
  const changed = after.flatMap((listener) => {
    const known = before.find(({ name }) => name === listener.name)
    if (known === undefined) return [listener.at]
    return ofListener.filter(([, read]) => read(known) !== read(listener)).map(([key]) => `${listener.at}/${key}`)
  })
  const isGone = before.some(({ name }) => !after.some((listener) => listener.name === name))
  // A renamed listener is reported once.
  const isTold = after.some(({ name }) => !before.some((listener) => listener.name === name))
  // `/listen`, or `/sidecar`.
  const section = segmentsOf(before[0]!.at)[0]!
  return [...changed, ...(isGone && !isTold ? [pointer('', section)] : [])]
}
