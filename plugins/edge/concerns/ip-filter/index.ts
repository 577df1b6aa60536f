/**
 * Allows or refuses requests by the client's address. Runs before authentication and rate limits, also for preflights and
 * WebSocket handshakes.
 */
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { Names, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { AddressSet, parseAddress } from '../../../address-ranges.ts'
import { edgeRouteOf } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import { NotFound } from '../../errors.ts'
import type { RequestAddress } from '../../protocol/address-list.ts'
import { AddressList, addressReader, checkedRanges, unix } from '../../protocol/address-list.ts'
import { AddressFile, readRanges } from './address-file.ts'

const Ranges = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, description }))
const File = (description: string) => Type.Optional(Type.String({ minLength: 1, description }))

const By = Names(['client', 'peer'], {
  default: 'client',
  description:
    '`client`: the address that proxies of `listen.trustProxy` have forwarded, else that of the connection. `peer`: always that of the connection.'
})

const IpFilter = Type.Object(
  {
    allow: Ranges(
      'Addresses and CIDR ranges that may use the route; others are refused. `unix`: requests at a Unix socket that have no forwarded address.'
    ),
    deny: Ranges('Addresses and CIDR ranges that are refused, even if `allow` has them. `unix` as in `allow`.'),
    allowFile: File('File with more of `allow`, one a line; `#` begins a comment. Changes apply within seconds.'),
    denyFile: File('The same for `deny`.'),
    by: By,
    status: Type.Integer({
      minimum: 400,
      maximum: 499,
      default: 403,
      description: 'Status of a refusal. 404: the same response as without the route.'
    })
  },
  { ...strict, description: 'Refuses requests by the address of the client. At least one list.' }
)

const OfConsumer = Type.Object(
  {
    allow: Ranges('Addresses and CIDR ranges from which the consumer may call. `unix` as in `edge.ipFilter`.'),
    deny: Ranges('Addresses and CIDR ranges that are refused, even if `allow` has them.'),
    by: By
  },
  {
    ...strict,
    description:
      'Refuses requests of the consumer by the address of the client, after authentication and besides `edge.ipFilter`.'
  }
)

type Options = Static<typeof IpFilter>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    ipFilter?: Options | false
  }
}

const Refused = createError('JW_ADDRESS_DENIED', 'Requests from this address are not allowed', 403)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const ipReasons = ['ip_denied', 'ip_not_allowed', 'ip_unknown'] as const

const advice = 'write ipFilter: { allow: […], deny: […] }'

export default edgeConcern({
  name: 'ipFilter',
  options: orOff(IpFilter),
  apiFacts: ({ status }) => ({ responses: { [status]: 'The address of the client is not allowed.' } }),
  aliases: Object.fromEntries(
    ['ipAllow', 'ipAllowList', 'ipDeny', 'ipRestriction', 'ipWhiteList', 'ipWhitelist'].map((name) => [name, advice])
  ),
  innerAliases: {
    'whitelist|sourceRange': 'write "allow"',
    blacklist: 'write "deny"',
    ipStrategy: 'write the addresses of proxies under listen.trustProxy'
  },
  // The address has been checked before the consumer is known; its own addresses are checked once it is.
  forConsumers: { phases: ['preParsing'], options: OfConsumer, isAdded: true },
  check,
  complete({ allowFile, denyFile, ...rest }, absolute) {
    return {
      ...rest,
      ...(allowFile !== undefined && { allowFile: absolute(allowFile) }),
      ...(denyFile !== undefined && { denyFile: absolute(denyFile) })
    }
  },
  explain(options, { ip }) {
    const address = parseAddress(ip)
    // The address of the connection is not known.
    if (options.by === 'peer' || address === null) return null
    const fileOf = (file: string) => ({ addresses: new AddressSet(readRanges(file)) })
    const reason = judgeOf(options, fileOf)(address)
    return reason === null ? `allows ${ip}` : `refuses ${ip}: ${reason}`
  },
  async plugin(fastify, { config, stores, log }) {
    const fileOf = (file: string): AddressFile =>
      stores.claim(
        'jingwei.address-file',
        file,
        () => new AddressFile(file, log),
        (opened) => opened.close()
      )
    const hidden: NonNullable<typeof fastify.hiddenRoutes> = new Map()
    fastify.decorate('hiddenRoutes', hidden)
    return (options, routeOptions, shadow, _refused, level) => {
      const addressOf = addressReader(config, options.by)
      const judge = judgeOf(options, fileOf)
      const { status = 403 } = options
      const refusalOf = (request: FastifyRequest): Error | null => {
        const reason = judge(addressOf(request))
        if (reason === null) return null
        request.refusalReason = reason
        return status === 404 ? new NotFound() : Object.assign(new Refused(), { statusCode: status })
      }
      if (level === 'consumer') {
        return { preParsing: (request, _reply, payload, done) => done(refusalOf(request), payload) }
      }
      if (status === 404 && shadow === null) {
        hidden.set(edgeRouteOf(routeOptions.config)!, (request) => judge(addressOf(request)) !== null)
      }
      return { onRequest: (request, _reply, done) => done(refusalOf(request) ?? undefined) }
    }
  }
})

type FileOf = (file: string) => { readonly addresses: AddressSet }
type Judge = (address: RequestAddress) => (typeof ipReasons)[number] | null

/** Returns the function that returns why an address is refused, or null. */
function judgeOf(options: Options, fileOf: FileOf): Judge {
  const isAllowed = testOf(options.allow, options.allowFile, fileOf)
  const isDenied = testOf(options.deny, options.denyFile, fileOf)
  return (address) => {
    if (address === null) return 'ip_unknown'
    if (isDenied?.(address)) return 'ip_denied'
    return isAllowed === null || isAllowed(address) ? null : 'ip_not_allowed'
  }
}

/** Returns the test for addresses of `allow` or `deny`, from the configuration and from a file; null without both. */
function testOf(texts: readonly string[] | undefined, path: string | undefined, fileOf: FileOf) {
  if (texts === undefined && path === undefined) return null
  const own = new AddressList(texts ?? [])
  const file = path === undefined ? null : fileOf(path)
  return (address: Exclude<RequestAddress, null>) =>
    own.has(address) || (address !== unix && (file?.addresses.has(address) ?? false))
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
  const denied = new AddressSet(checkedRanges(deny ?? [], `${at}/deny`, report))
  for (const { at: place, text, ...range } of checkedRanges(allow ?? [], `${at}/allow`, report)) {
    if (denied.covers(range)) report.fault(place, `"deny" has all addresses of "${text}", so nothing is allowed by it`)
  }
}
