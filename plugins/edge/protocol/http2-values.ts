/** Fields that Node's HTTP/2 writer allows only once in a header or trailer section (`kSingleValueFields`). */
const singleFields: ReadonlySet<string> = new Set([
  'access-control-allow-credentials',
  'access-control-max-age',
  'access-control-request-method',
  'age',
  'authorization',
  'content-encoding',
  'content-language',
  'content-length',
  'content-location',
  'content-md5',
  'content-range',
  'content-type',
  'date',
  'dnt',
  'etag',
  'expires',
  'from',
  'host',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'last-modified',
  'location',
  'max-forwards',
  'proxy-authorization',
  'range',
  'referer',
  'retry-after',
  'tk',
  'upgrade-insecure-requests',
  'user-agent',
  'x-content-type-options'
])

/** Fields among them whose value is a list, so that several fields may be joined (RFC 9110, 5.3). */
const lists: ReadonlySet<string> = new Set(['content-encoding', 'content-language', 'if-match', 'if-none-match'])

/** Returns the values of a repeated field as HTTP/2 allows them: lists are joined, of other fields the first one is used. */
export function http2Values(name: string, values: readonly string[]): readonly string[] {
  if (!singleFields.has(name) || values.length < 2) return values
  return [lists.has(name) ? values.join(', ') : values[0]!]
}
