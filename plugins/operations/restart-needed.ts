import type { Config } from '../../config/schema.ts'

type Read = (config: Config) => unknown

/** What only a restart changes: sockets are bound, and Node reads some limits once. */
const fixed: readonly (readonly [pointer: string, read: Read])[] = [
  ['/listen/host', ({ listen }) => listen.host],
  ['/listen/port', ({ listen }) => listen.port],
  ['/listen/tls', ({ listen }) => listen.tls !== undefined],
  ['/listen/http2', ({ listen }) => listen.http2],
  ['/listen/limits/headers', ({ listen }) => listen.limits.headers],
  ['/admin', ({ admin }) => admin !== false],
  ['/admin/host', ({ admin }) => (admin || null)?.host],
  ['/admin/port', ({ admin }) => (admin || null)?.port]
]

/** Returns the pointers to the keys whose change cannot be applied to a running process. */
export function restartNeeded(before: Config, after: Config): string[] {
  const differs = ([, read]: (typeof fixed)[number]) => JSON.stringify(read(before)) !== JSON.stringify(read(after))
  return fixed.filter(differs).map(([pointer]) => pointer)
}
