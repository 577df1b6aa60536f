import { headerOf } from '../request-facts.ts'
import type { DispatchOptions } from '../types.ts'

/** On these the answer always depends, whatever the policy says. */
const always = [
  'host', 'range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range',
  'x-jingwei-fault-delay', 'x-jingwei-fault-abort', 'x-jingwei-fault-bandwidth'
] // biome-ignore format: a list

export interface CollapseKey {
  readonly names: ReadonlySet<string>
  /** Of requests that are identical, the same text; null for one that is not to be collapsed. */
  readonly of: (opts: DispatchOptions) => string | null
}

/** Requests are identical by method, path, consumer and these headers. */
export function collapseKey(headers: readonly string[]): CollapseKey {
  const names = [...new Set([...always, ...headers.map((name) => name.toLowerCase())])]
  const indices = new Map(names.map((name, index) => [name, index]))

  function valuesOf(opts: DispatchOptions): readonly (string | undefined)[] {
    if (!Array.isArray(opts.headers)) return names.map((name) => headerOf(opts, name, '\r'))
    // As the bridge gives them: one look at each.
    const values = new Array<string | undefined>(names.length)
    for (let i = 0; i + 1 < opts.headers.length; i += 2) {
      const index = indices.get(String(opts.headers[i]).toLowerCase())
      if (index === undefined) continue
      const before = values[index]
      const value = String(opts.headers[i + 1])
      values[index] = before === undefined ? value : `${before}\r${value}`
    }
    return values
  }

  return {
    names: new Set(names),
    of(opts) {
      const { method, path, body, caller, query, upgrade } = opts
      if ((method !== 'GET' && method !== 'HEAD') || upgrade || query) return null
      if (body !== null && body !== undefined) return null
      let key = `${method} ${path}\n${caller?.consumer?.id ?? ''}`
      // No value holds a line feed.
      for (const value of valuesOf(opts)) key += value === undefined ? '\n' : `\n=${value}`
      return key
    }
  }
}
