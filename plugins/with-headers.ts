/** Headers of undici's dispatch options, which come in several shapes. For interceptors of plugins, and the edge. */
import type { Dispatcher } from 'undici'

type Headers = Dispatcher.DispatchOptions['headers']

/** Returns headers in any shape that undici takes (none, a flat list, an object, an iterable of pairs) as name, value, name, value. */
export function headerPairs(headers: Headers): string[] {
  if (headers === null || headers === undefined) return []
  if (Array.isArray(headers)) return headers.map(String)
  const entries = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
  return entries.flatMap(([name, value]) => [value ?? []].flat().flatMap((each) => [String(name), String(each)]))
}

/**
 * Returns a copy of dispatch options with these headers set, in place of any of the same name. A copy, since the next
 * attempt of the call starts from the same options.
 */
export function withHeaders<T extends Pick<Dispatcher.DispatchOptions, 'headers'>>(
  options: T,
  headers: Readonly<Record<string, string>>
): T {
  const set = new Set(Object.keys(headers).map((name) => name.toLowerCase()))
  const before = headerPairs(options.headers)
  const kept = before.filter((_, index) => !set.has(before[index - (index % 2)]!.toLowerCase()))
  return { ...options, headers: [...kept, ...Object.entries(headers).flat()] }
}
