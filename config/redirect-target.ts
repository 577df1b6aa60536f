/** Parses the target of a redirect, `routes[].redirect.to`. */
import { writtenHostKey } from './host-name.ts'

export interface RedirectTarget {
  /** Scheme and authority; null if they are those of the request. */
  readonly origin: string | null
  /** Path with parameters of the match; null if the path of the request is kept. */
  readonly path: string | null
  /** Query without its question mark; empty if there is none. */
  readonly query: string
  /** Fragment with its `#`; empty if there is none. */
  readonly fragment: string
}

const form = /^(?:(https?):\/\/([^/?#]*))?(\/[^?#]*)?(?:\?([^#]*))?(#.*)?$/is
const standardPorts: Readonly<Record<string, string>> = { http: '80', https: '443' }

/** Returns the parts of a target. Throws an error whose message is the reason why it is none. */
export function redirectTarget(text: string): RedirectTarget {
  const found = form.exec(text)
  if (found === null) throw new Error('expected a path that starts with /, or a URL')
  const [, scheme, authority = '', path = null, query = '', fragment = ''] = found
  if (path === null && scheme !== undefined && query !== '') throw new Error('write a path before the query')
  const [odd] = /[^!-~]|["<>\\^`{|}]|%(?![\da-f]{2})/i.exec(query + fragment) ?? []
  if (odd !== undefined) throw new Error(`query and fragment must not contain "${odd}": percent-encode it`)
  const [unsent] = /\/\/|\/\.\.?(?=\/|$)|[;\\]|%(?![\da-f]{2})/i.exec(path ?? '') ?? []
  if (unsent !== undefined) throw new Error(`a path must not contain "${unsent}": it is a plain path`)
  const origin = scheme === undefined ? null : originOf(scheme.toLowerCase(), authority)
  return { origin, path, query, fragment }
}

function originOf(scheme: string, authority: string): string {
  const [, name = '', port] = /^(\[.*\]|[^:]*)(?::(\d{1,5}))?$/.exec(authority) ?? []
  const host = name.startsWith('*') ? null : writtenHostKey(name)
  if (host === null || host === '' || Number(port ?? 1) > 65535 || Number(port ?? 1) < 1)
    throw new Error(`"${authority}" is not a host, or a host and a port; it has no parameters`)
  return `${scheme}://${host}${port === undefined || port === standardPorts[scheme] ? '' : `:${Number(port)}`}`
}
