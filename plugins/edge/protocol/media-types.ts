/** Media types of bodies. */
import type { IncomingMessage } from 'node:http'
import { canonicalName } from '../../../config/header-names.ts'

export interface MediaType {
  /** `application/json`, in lower case. */
  readonly essence: string
  /** False for a charset other than UTF-8. */
  readonly isUtf8: boolean
}

/** Types by field: services and clients send a few of them, again and again. */
const known = new Map<string, MediaType | null>()
const mostKnown = 200
const longestKnown = 100

/** Parses a Content-Type; null if it is absent or malformed. */
export function mediaTypeOf(field: string | undefined): MediaType | null {
  if (field === undefined) return null
  let type = known.get(field)
  if (type !== undefined) return type
  type = parsed(field)
  if (field.length > longestKnown) return type
  // Emptied, since a client that sends many types would otherwise keep it full of them for good.
  if (known.size === mostKnown) known.clear()
  known.set(field, type)
  return type
}

function parsed(field: string): MediaType | null {
  const [essence = '', ...parameters] = field.split(';')
  const name = essence.trim().toLowerCase()
  if (!/^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+$/.test(name)) return null
  const charsets = parameters.filter((each) => /^\s*charset\s*=/i.test(each))
  return { essence: name, isUtf8: charsets.every((each) => /=\s*"?(?:utf-?8|us-ascii)"?\s*$/i.test(each)) }
}

const wanted = canonicalName('content-type')

/** Returns the values of Content-Type, also of `Content_Type`, which some services read. Node has only the first one in `headers`. */
export function typeFields({ rawHeaders }: IncomingMessage): string[] {
  const found: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === wanted.length && canonicalName(name) === wanted) found.push(rawHeaders[i + 1]!)
  }
  return found
}

/** Format in which bodies of a type are read. */
export type Format = 'json' | 'form' | 'text'

export function formatOf(type: string): Format | null {
  if (/^(?:application|text)\/json$|\+json$/.test(type)) return 'json'
  if (type === 'application/x-www-form-urlencoded') return 'form'
  return type.startsWith('text/') ? 'text' : null
}

const name = '[a-zA-Z0-9!#$&^_.+-]+'

/** Pattern of the media ranges that `ruleFor` compares: a type such as `application/json`, all types of a group, those with a suffix, or all. */
export const rangePattern = `^(?:\\*/\\*|${name}/(?:${name}|\\*|\\*\\+${name}))$`

/** Returns how specific a media range is, if a type is within it; 0 if not. */
function fit(range: string, type: string): number {
  const [plain = ''] = range.toLowerCase().split(';')
  const name = plain.trim()
  if (name === type) return 4
  if (name === '*/*') return 1
  const [group = '', subtype = ''] = name.split('/')
  if (!type.startsWith(`${group}/`)) return 0
  if (subtype === '*') return 2
  return subtype.startsWith('*+') && type.endsWith(subtype.slice(1)) ? 3 : 0
}

/** Returns the rule of the most specific range that a type is within; undefined if there is none. */
export function ruleFor<T>(rules: readonly (readonly [range: string, rule: T])[], type: string): T | undefined {
  let best = 0
  let found: T | undefined
  for (const [range, rule] of rules) {
    const fits = fit(range, type)
    if (fits > best) [best, found] = [fits, rule]
  }
  return found
}
