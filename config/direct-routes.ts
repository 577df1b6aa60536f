/** Routes to which the gateway responds itself, without a service. */
import type { DirectOptions } from './schema/direct.ts'

export const directKinds = [
  'response',
  'redirect',
  'files',
  'portal'
] as const satisfies readonly (keyof DirectOptions)[]

export type DirectKind = (typeof directKinds)[number]

/** Returns the key by which the gateway responds to a route itself; null for routes with services. */
export function directKindOf(route: DirectOptions): DirectKind | null {
  return directKinds.find((kind) => route[kind] !== undefined) ?? null
}

/** Returns what the gateway responds to a route, for operators; null for routes with services. */
export function directText({ response, redirect, files, portal }: DirectOptions): string | null {
  if (portal !== undefined) return `portal of ${Object.keys(portal.services).join(', ')}`
  if (response !== undefined) return `response ${response.status}`
  if (files !== undefined) return `files of ${files.root}`
  if (redirect === undefined) return null
  const { to, scheme, port, status } = redirect
  const place = to ?? (scheme === undefined ? 'another path' : `${scheme}${port === undefined ? '' : `:${port}`}`)
  return `redirect ${status} to ${place}`
}
