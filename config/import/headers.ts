/** Changes of headers, as those of `edge.headers` and `edge.query`. */

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
  const rules: Settings = Object.fromEntries(
    Object.entries(given).map(([operation, values]) => [
      operation,
      Array.isArray(values) ? values : Object.fromEntries(templates(operation, values as Record<string, string>))
    ])
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
