/** Allows or refuses requests by `User-Agent`. The header is what a client says of itself: no protection against clients that lie. */
import createError from '@fastify/error'
import { FifoMap } from 'toad-cache'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { expressionFault, expressionOf } from '../../../config/expressions.ts'
import { pointer } from '../../../config/faults.ts'
import { linearRegExp } from '../../../config/linear-regexp.ts'
import { Names, orOff, strict, Text } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { headerValues } from '../authentication/credentials.ts'
import { edgeConcern } from '../concern.ts'

const List = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, maxItems: 100, description }))

const UserAgent = Type.Object(
  {
    allow: List(
      'User agents that may use the route; others are refused. A text with `*` for any characters, such as `curl/*` or `*bot*`, in which upper and lower case are alike; or a regular expression, `/^…$/`. Both are for the whole value.'
    ),
    deny: List('User agents that are refused, written as in `allow`. Either `allow` or `deny`.'),
    except: List('User agents that pass although `deny` has them, written as in `allow`.'),
    empty: Type.Optional(
      Names(['pass', 'refuse'], {
        description:
          'Requests without `User-Agent`, or with an empty one. Default: `refuse` with `allow`, `pass` with `deny`.'
      })
    )
  },
  { ...strict, description: 'Refuses requests by `User-Agent`.' }
)

type Options = Static<typeof UserAgent>

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    userAgent?: Options | false
  }
}

const Refused = createError('JW_USER_AGENT_DENIED', 'Requests of this user agent are not allowed', 403)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const userAgentReasons = [
  'user_agent_denied',
  'user_agent_not_allowed',
  'user_agent_missing',
  'user_agent_long'
] as const
type Reason = (typeof userAgentReasons)[number]

/** Longest value that is compared, in characters: that of any program is shorter. */
const longest = 1000

/** Values whose decision is kept. */
const mostKept = 500

export default edgeConcern({
  name: 'userAgent',
  options: orOff(UserAgent),
  apiFacts: () => ({ responses: { 403: 'The user agent is not allowed.' } }),
  // A client can claim to be any other one.
  protects: false,
  aliases: Object.fromEntries(
    ['botDetection', 'botDetector', 'uaRestriction', 'userAgents', 'bots'].map((name) => [
      name,
      'write userAgent: { deny: ["*bot*"] }'
    ])
  ),
  innerAliases: {
    'allowlist|whitelist': 'write "allow"',
    'denylist|blacklist|patterns': 'write "deny"',
    bypassMissing: 'write empty: pass',
    emptyUserAgentIsBot: 'write empty: refuse'
  },
  check,
  explain(options, { headers }) {
    const reason = judgeOf(options)([headers['user-agent'] ?? ''])
    return reason === null ? 'allows the user agent' : `refuses the user agent: ${reason}`
  },
  plugin: async () => (options) => {
    const judge = judgeOf(options)
    const known = new FifoMap<Reason | null>(mostKept)
    const judgeOne = (value: string): Reason | null => {
      if (value.length > longest) return 'user_agent_long'
      let reason = known.get(value)
      if (reason === undefined) {
        reason = judge([value])
        known.set(value, reason)
      }
      return reason
    }
    return {
      onRequest(request, _reply, done) {
        const values = headerValues(request, 'user-agent')
        // Several fields are no browser's. A service may read any of them, so all must pass.
        const reason = values.length === 1 ? judgeOne(values[0]!) : judge(values)
        if (reason === null) return done()
        request.refusalReason = reason
        done(new Refused())
      }
    }
  }
})

type Test = (value: string) => boolean

/** Returns the function that returns why a request with these fields is refused; null if it is not. */
function judgeOf({ allow, deny, except, empty }: Options): (values: readonly string[]) => Reason | null {
  const [isAllowed, isDenied, isExcepted] = [allow, deny, except].map((texts) => texts && testOf(texts))
  const refusesEmpty = (empty ?? (allow === undefined ? 'pass' : 'refuse')) === 'refuse'
  const judgeOne = (value: string): Reason | null => {
    if (value.length > longest) return 'user_agent_long'
    if (isDenied?.(value) && !isExcepted?.(value)) return 'user_agent_denied'
    return isAllowed === undefined || isAllowed(value) ? null : 'user_agent_not_allowed'
  }
  return (values) => {
    const given = values.filter((value) => value.trim() !== '')
    if (given.length === 0) return refusesEmpty ? 'user_agent_missing' : null
    for (const value of given) {
      const reason = judgeOne(value)
      if (reason !== null) return reason
    }
    return null
  }
}

function testOf(texts: readonly string[]): Test {
  const tests = texts.map((text): Test => {
    const expression = expressionOf(text)
    return expression === null ? wildcardTest(text) : linearRegExp(expression)
  })
  return (value) => tests.some((test) => test(value))
}

/** Returns the test of a text with `*`. Searches each part once, so the cost does not grow with the number of `*`. */
function wildcardTest(text: string): Test {
  const parts = text.toLowerCase().split('*')
  const [first = '', last = ''] = [parts[0], parts.at(-1)]
  if (parts.length === 1) return (value) => value.toLowerCase() === first
  const inner = parts.slice(1, -1)
  return (value) => {
    const lower = value.toLowerCase()
    const end = lower.length - last.length
    if (end < first.length || !lower.startsWith(first) || !lower.endsWith(last)) return false
    let at = first.length
    for (const part of inner) {
      const found = lower.indexOf(part, at)
      if (found === -1) return false
      at = found + part.length
    }
    return at <= end
  }
}

function check({ allow, deny, except, empty }: Options, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  if (allow === undefined && deny === undefined && empty !== 'refuse') {
    report.fault(at, 'refuses nothing: write "deny" or "allow", or empty: refuse')
  }
  if (allow !== undefined && deny !== undefined) {
    report.fault(pointer(at, 'deny'), 'either "allow" or "deny": write exceptions from "deny" under "except"', 'key')
  }
  if (except !== undefined && deny === undefined)
    report.fault(pointer(at, 'except'), 'has no effect without "deny"', 'key')
  for (const [key, texts] of Object.entries({ allow, deny, except })) {
    for (const [index, text] of (texts ?? []).entries()) {
      const place = pointer(at, key, index)
      const fault = faultOf(text)
      if (fault !== null) report.fault(place, fault)
      else if (/^[^*/\s]+$/.test(text)) {
        report.warn(place, `"${text}" is compared with the whole User-Agent: write "*${text}*" to find it within`)
      }
    }
  }
}

function faultOf(text: string): string | null {
  if (expressionOf(text) !== null || /^\/.*\/[a-z]*$|^\^|\$$/s.test(text)) return expressionFault(text)
  if (/[^\x20-\x7e]/.test(text)) return 'a User-Agent has only printable ASCII characters'
  return /^\*+$/.test(text) ? `"${text}" is any user agent: name some` : null
}
