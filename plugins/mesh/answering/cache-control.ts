import type { IncomingHttpHeaders } from 'node:http'

/** The directives of a Cache-Control header, names in lower case; RFC 9111, 5.2. */
export function cacheControl(value: string | string[] | undefined): ReadonlyMap<string, string> {
  const directives = new Map<string, string>()
  // Quoted lists of field names hold commas; only the directive before them matters here.
  for (const part of String(value ?? '')
    .replace(/"[^"]*"/g, '')
    .split(',')) {
    const [name = '', argument = ''] = part.split('=')
    if (name.trim() !== '') directives.set(name.trim().toLowerCase(), argument.trim())
  }
  return directives
}

/** The request headers that the answer depends on; null where it depends on more than these. RFC 9110, 12.5.5. */
export function varyOf({ vary }: IncomingHttpHeaders): readonly string[] | null {
  if (vary === undefined) return []
  const names = String(vary).toLowerCase().split(',').map((name) => name.trim()) // biome-ignore format: short
  return names.includes('*') ? null : names.filter((name) => name !== '')
}
