/** Changes of headers, as those of `edge.headers` and `edge.query`. */
import type { Settings } from './yaml-text.ts'

type Operation = 'only' | 'remove' | 'rename' | 'set' | 'add' | 'append'
type Rules = { readonly [each in Operation]?: readonly string[] | Readonly<Record<string, string>> }

/** Returns a text as a template without references: braces are written twice. */
const literal = (text: string): string => text.replace(/[{}]/g, '$&$&')

/** Adds rules for requests or responses to those that the settings have. Values are texts, and no templates. */
export function addRules(edge: Settings, direction: 'request' | 'response' | 'query', rules: Rules): void {
  const headers = (edge.headers ?? {}) as Settings
  const before = ((direction === 'query' ? edge.query : headers[direction]) ?? {}) as Settings
  const merged: Settings = { ...before }
  for (const [operation, given] of Object.entries(rules)) {
    if (Object.keys(given).length === 0) continue
    merged[operation] = Array.isArray(given)
      ? [...((merged[operation] as string[] | undefined) ?? []), ...(given as string[])]
      : {
          ...((merged[operation] ?? {}) as Settings),
          ...Object.fromEntries(
            Object.entries(given as Record<string, string>).map(([name, value]) => [
              name,
              operation === 'rename' ? value : literal(value)
            ])
          )
        }
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
