/**
 * Allows or refuses requests by the client's address. Runs before authentication and rate limits, also for preflights and
 * WebSocket handshakes.
 */
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { Mode, Names, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { AddressSet, parseAddress, parseRange } from '../../../address-ranges.ts'
import { edgeConcern } from '../../concern.ts'
import { NotFound } from '../../errors.ts'
import { byListener } from '../../protocol/peers.ts'
import { AddressFile, readRanges } from './address-file.ts'

const Ranges = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, description }))
const File = (description: string) => Type.Optional(Type.String({ minLength: 1, description }))

const IpFilter = Type.Object(
  {
    allow: Ranges(
      'Addresses and CIDR ranges that may use the route; others are refused. `unix`: requests at a Unix socket that have no forwarded address.'
    ),
    deny: Ranges('Addresses and CIDR ranges that are refused, even if `allow` has them. `unix` as in `allow`.'),
    allowFile: File('File with more of `allow`, one a line; `#` begins a comment. Changes apply within seconds.'),
    denyFile: File('The same for `deny`.'),
    by: Names(['client', 'peer'], {
      default: 'client',
      description:
        '`client`: the address that proxies of `listen.trustProxy` have forwarded, else that of the connection. `peer`: always that of the connection.'
    }),
    status: Type.Integer({
      minimum: 400,
      maximum: 499,
      default: 403,
      description: 'Status of a refusal. 404: the same response as without the route.'
    }),
    mode: Mode
  },
  { ...strict, description: 'Refuses requests by the address of the client. At least one list.' }
)

type Options = Static<typeof IpFilter>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    ipFilter?: Options | false
  }
}

const Refused = createError('JW_ADDRESS_DENIED', 'Requests from this address are not allowed', 403)

/** Reasons for the access log. A closed list, documented in plugins/edge/README.md. */
export const ipReasons = ['ip_denied', 'ip_not_allowed', 'ip_unknown'] as const

const unix = 'unix'
const advice = 'write ipFilter: { allow: […], deny: […] }'

export default edgeConcern({
  name: 'ipFilter',
  options: orOff(IpFilter),
  aliases: Object.fromEntries(
    ['ipAllow', 'ipAllowList', 'ipDeny', 'ipRestriction', 'ipWhiteList', 'ipWhitelist'].map((name) => [name, advice])
  ),
  innerAliases: { whitelist: 'write "allow"', blacklist: 'write "deny"', sourceRange: 'write "allow"' },
  check,
  complete({ allowFile, denyFile, ...rest }, absolute) {
    return {
      ...rest,
      ...(allowFile !== undefined && { allowFile: absolute(allowFile) }),
      ...(denyFile !== undefined && { denyFile: absolute(denyFile) })
    }
  },
  async plugin(_fastify, { config, stores, log }) {
    const isUnixOf = byListener(config, ({ path }) => path !== undefined)
    const fileOf = (file: string): AddressFile =>
      stores.claim(
        'jingwei.address-file',
        file,
        () => new AddressFile(file, log),
        (opened) => opened.close()
      )
    return (options) => {
      const { by, status } = options
      const allow = listOf(options.allow, options.allowFile, fileOf)
      const deny = listOf(options.deny, options.denyFile, fileOf)
      const reasonFor = (request: FastifyRequest): (typeof ipReasons)[number] | null => {
        const { remoteAddress } = request.raw.socket
        // The address on arrival: later, the connection may be closed and its address unknown.
        const text = by === 'peer' ? remoteAddress : request.callerIp || request.ip
        if (text === undefined && isUnixOf(request.raw)) {
          if (deny?.hasUnix) return 'ip_denied'
          return allow === null || allow.hasUnix ? null : 'ip_not_allowed'
        }
        const address = parseAddress(text ?? '')
        if (address === null) return 'ip_unknown'
        if (deny?.has(address)) return 'ip_denied'
        return allow === null || allow.has(address) ? null : 'ip_not_allowed'
      }
      return {
        onRequest(request, _reply, done) {
          const reason = reasonFor(request)
          if (reason === null) return done()
          request.refusalReason = reason
          done(status === 404 ? new NotFound() : Object.assign(new Refused(), { statusCode: status }))
        }
      }
    }
  }
})

/** Addresses of `allow` or `deny`, from the configuration and from a file. */
interface List {
  readonly hasUnix: boolean
  has(address: number | bigint): boolean
}

function listOf(
  texts: readonly string[] | undefined,
  path: string | undefined,
  fileOf: (file: string) => AddressFile
): List | null {
  if (texts === undefined && path === undefined) return null
  const own = new AddressSet((texts ?? []).filter((text) => text !== unix).map(parseRange))
  const file = path === undefined ? null : fileOf(path)
  return {
    hasUnix: texts?.includes(unix) ?? false,
    has: (address) => own.has(address) || (file?.addresses.has(address) ?? false)
  }
}

function check(options: Options, at: string, { report, absolute }: Checked): void {
  if (!report.sound(at)) return
  const { allow, deny, allowFile, denyFile } = options
  if ([allow, deny, allowFile, denyFile].every((each) => each === undefined)) {
    report.fault(at, 'needs addresses: write "allow" or "deny"')
  }
  for (const [key, path] of Object.entries({ allowFile, denyFile })) {
    try {
      if (path !== undefined) readRanges(absolute(path))
    } catch (error) {
      report.fault(pointer(at, key), (error as Error).message)
    }
  }
  const ranges = (key: 'allow' | 'deny') =>
    (options[key] ?? []).flatMap((text, index) => {
      if (text === unix) return []
      try {
        return { ...parseRange(text), at: pointer(at, key, index), text }
      } catch (error) {
        report.fault(pointer(at, key, index), (error as Error).message)
        return []
      }
    })
  const denied = new AddressSet(ranges('deny'))
  for (const { at, text, ...range } of ranges('allow')) {
    if (denied.covers(range)) report.fault(at, `"deny" has all addresses of "${text}", so nothing is allowed by it`)
  }
}
