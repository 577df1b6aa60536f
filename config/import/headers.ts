/** Changes of headers, as those of `edge.headers` and `edge.query`. */

import { canonicalName, isConnectionHeader, isGatewayHeader } from '../header-names.ts'
import type { ToTemplate } from './templates.ts'
import { literal } from './templates.ts'
import type { Settings } from './yaml-text.ts'

type Operation = 'only' | 'remove' | 'rename' | 'set' | 'add' | 'append'
type Rules = { readonly [each in Operation]?: readonly string[] | Readonly<Record<string, string>> }

/**
 * Adds rules for requests or responses to those that the settings have. Values are texts, and no
 * templates, unless `asTemplate` makes such of them. A value that it cannot convert is left out, and `report` gets it. For a
 * request that it would have set, the client's own is removed: a service may trust it.
 */
export function addRules(
  edge: Settings,
  direction: 'request' | 'response' | 'query',
  given: Rules,
  asTemplate: ToTemplate = literal,
  report: (text: string) => void = () => {}
): void {
  const lost: string[] = []
  const templates = (operation: string, values: Readonly<Record<string, string>>) =>
    Object.entries(values).flatMap(([name, value]) => {
      const template = operation === 'rename' ? value : asTemplate(value)
      if (template !== null) return [[name, template]]
      report(`${direction} ${operation} ${name}: ${value} has no counterpart: left out`)
      if (operation === 'set' && direction !== 'response') lost.push(name)
      return []
    })
  /** Returns whether rules may name a header. */
  const isFree = (name: string): boolean => {
    const isOwn = direction !== 'query' && isOfGateway(name, direction)
    if (isOwn) report(`${direction} header ${name}: left out; the gateway sets it itself`)
    return !isOwn
  }
  const rules: Settings = Object.fromEntries(
    Object.entries(given).map(([operation, values]) => {
      if (operation === 'only') return [operation, values]
      if (Array.isArray(values)) return [operation, (values as readonly string[]).filter(isFree)]
      const all = Object.entries(values as Record<string, string>)
      const free = all.filter(([name, value]) => [name, ...(operation === 'rename' ? [value] : [])].every(isFree))
      return [operation, Object.fromEntries(templates(operation, Object.fromEntries(free)))]
    })
  )
  if (lost.length > 0) rules.remove = [...((rules.remove ?? []) as string[]), ...lost]

  const headers = (edge.headers ?? {}) as Settings
  const before = ((direction === 'query' ? edge.query : headers[direction]) ?? {}) as Settings
  const merged: Settings = { ...before }
  for (const [operation, values] of Object.entries(rules)) {
    if (Object.keys(values as object).length === 0) continue
    merged[operation] = Array.isArray(values)
      ? [...((merged[operation] as string[] | undefined) ?? []), ...(values as string[])]
      : { ...((merged[operation] ?? {}) as Settings), ...(values as Settings) }
  }
  if (Object.keys(merged).length === 0) return
  if (direction === 'query') edge.query = merged
  else edge.headers = { ...headers, [direction]: merged }
}

/** Returns whether the gateway sets a header itself, so that `check` refuses rules for it. */
export const isOfGateway = (name: string, direction: 'request' | 'response'): boolean =>
  isConnectionHeader(name) ||
  name.toLowerCase() === 'content-encoding' ||
  (direction === 'request' && (isGatewayHeader(name) || canonicalName(name) === 'host'))

/** Returns a mapping for texts such as `X-Name: value`. */
export const pairsOf = (texts: readonly string[]): Record<string, string> =>
  Object.fromEntries(
    texts.map((text) => {
      const colon = text.indexOf(':')
      return [text.slice(0, colon).trim().toLowerCase(), text.slice(colon + 1).trim()]
    })
  )

export const lower = (names: readonly string[]): string[] => names.map((name) => name.toLowerCase())

/** Makes a route respond itself, in place of its service. */
export function respondWith(route: Settings, kind: 'response' | 'redirect', settings: Settings): void {
  delete route.service
  delete route.split
  delete route.path
  delete route.mesh
  route[kind] = settings
}
