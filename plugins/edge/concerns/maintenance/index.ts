/** Maintenance mode: refuses requests with 503 and `Retry-After`, except those of an allow-list. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { dirname } from 'node:path'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { checkBody } from '../../../../config/check-body.ts'
import type { Checked } from '../../../../config/concern.ts'
import { contentOf } from '../../../../config/content.ts'
import { bodyKeys } from '../../../../config/schema/direct.ts'
import { Duration, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { parseAddress } from '../../../address-ranges.ts'
import { token } from '../../../http-syntax.ts'
import { edgeRouteOf } from '../../attach.ts'
import { headerValues, removeHeader } from '../../authentication/credentials.ts'
import { edgeConcern } from '../../concern.ts'
import { AddressList, addressReader, checkedRanges } from '../../protocol/address-list.ts'
import { addPages } from './admin.ts'
import { maintenanceCommand } from './command.ts'
import { RouteStates } from './states.ts'
import { isPresent, SwitchFile } from './switch-file.ts'
import { Switches } from './switches.ts'

const Allow = Type.Object(
  {
    addresses: Type.Optional(
      Type.Array(Text, {
        minItems: 1,
        description: 'Addresses and CIDR ranges of clients, as `edge.ipFilter.allow`. Runs before authentication.'
      })
    ),
    consumers: Type.Optional(
      Type.Array(Text, {
        minItems: 1,
        description:
          'Consumers. Then all requests are authenticated first, so that those without valid credentials get 401.'
      })
    ),
    headers: Type.Optional(
      Type.Unsafe<Record<string, string>>({
        type: 'object',
        expectedKey: 'a header name',
        patternProperties: { [token.source]: { type: 'string', minLength: 1 } },
        ...strict,
        minProperties: 1,
        maxProperties: 16,
        description:
          'Request headers with their values. Clients choose headers, so the value is a secret: the header does not reach the service.'
      })
    )
  },
  { ...strict, minProperties: 1, description: 'Requests that are served all the same. One of the conditions suffices.' }
)

const Maintenance = Type.Object(
  {
    enabled: Type.Boolean({
      default: true,
      description: 'false: off, with its settings kept, until it is switched on at the admin port.'
    }),
    whileFile: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'Only while this file exists. It is looked for every second, without a reload.'
      })
    ),
    retryAfter: Duration('Value of `Retry-After`.', { default: '1m' }),
    allow: Type.Optional(Allow),
    ...bodyKeys
  },
  { ...strict, description: 'Refuses requests with 503 while a route is under maintenance.' }
)

type Options = Static<typeof Maintenance>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    maintenance?: Options | false
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Maintenance mode of the routes that use the concern. */
    maintenanceStates: RouteStates
  }
}

const code = 'JW_MAINTENANCE'
const UnderMaintenance = createError('JW_MAINTENANCE', 'The service is under maintenance', 503)

export default edgeConcern({
  name: 'maintenance',
  options: orOff(Maintenance),
  aliases: { 'maintenanceMode|downtime|offline': 'write maintenance: {}' },
  innerAliases: {
    'status|statusCode': 'it is always 503',
    'message|content': 'write body',
    'page|html': 'write file: page.html, or body with contentType: text/html',
    'whitelist|allowlist|bypass|except': 'write allow: { addresses: […] }',
    'on|active': 'write enabled',
    'flagFile|triggerFile|ifFile': 'write whileFile'
  },
  apiFacts: () => ({ responses: { 503: 'The service is under maintenance.' } }),
  // A route without it is protected equally: the mode is no protection.
  protects: false,
  needs: {
    fact: 'consumer',
    option: 'allow',
    value: (allow: Options['allow']) => allow?.consumers !== undefined
  },
  check,
  complete({ whileFile, file, ...rest }, absolute) {
    return {
      ...rest,
      ...(whileFile !== undefined && { whileFile: absolute(whileFile) }),
      ...(file !== undefined && { file: absolute(file) })
    }
  },
  commands: [maintenanceCommand],
  explain(options, { ip, headers, consumer, route, gateway }) {
    const { enabled, whileFile, allow = {} } = options
    const states = gateway?.hasDecorator('maintenanceStates') ? gateway.maintenanceStates : null
    const switched = states?.switchOf(route) ?? null
    if (switched === false) return 'off: switched off at the admin port'
    if (switched === null && !enabled) return 'off: enabled is false'
    if (switched === null && whileFile !== undefined && !isPresent(whileFile)) return `off: ${whileFile} does not exist`
    const address = parseAddress(ip)
    if (address !== null && new AddressList(allow.addresses ?? []).has(address))
      return `allows ${ip} during the maintenance`
    if (Object.entries(allow.headers ?? {}).some(([name, value]) => headers[name.toLowerCase()] === value))
      return 'allows the request by its header during the maintenance'
    if (consumer !== null && allow.consumers?.includes(consumer.id))
      return `allows ${consumer.id} during the maintenance`
    return `refuses with 503 ${code}${switched ? ': switched on at the admin port' : ''}`
  },
  async plugin(fastify, { config, stores, meter, log }) {
    const switches = stores.claim('jingwei.maintenance-switches', null, () => new Switches())
    const states = new RouteStates(switches)
    fastify.decorate('maintenanceStates', states)
    fastify.addHook('onClose', async () => states.close())
    // Once the configuration is in use: a reload that fails forgets nothing.
    fastify.addHook('onListen', async () => {
      const routes = new Set([...states.names, ...config.routes.map(({ name }) => name)])
      switches.retain(routes, new Set(config.routes.flatMap(({ group }) => group ?? [])))
    })
    const admin = fastify.hasDecorator('admin') ? fastify.admin : null
    if (admin !== null) addPages(admin, { config, states, switches, log })
    meter.gauge({
      name: 'jingwei_edge_maintenance',
      help: '1 while a route with maintenance settings refuses requests because of them, else 0.',
      labelNames: ['route'],
      collect: (set) => {
        for (const { route, on, mode } of states.list()) set({ route }, on && mode === undefined ? 1 : 0)
      }
    })
    const switchOf = (file: string): SwitchFile =>
      stores.claim(
        'jingwei.maintenance-file',
        file,
        () => new SwitchFile(file, log),
        (opened) => opened.close()
      )
    return (options, routeOptions, shadow, refused) => {
      const { enabled, whileFile, retryAfter, allow = {} } = options
      const file = whileFile === undefined ? null : switchOf(whileFile)
      const route = edgeRouteOf(routeOptions.config)!
      const settings = { enabled, file, isShadow: shadow !== null }
      const state = states.add(route.name, routeOptions.config?.route?.group, settings)
      if (!enabled && admin === null && allow.headers === undefined) return null
      const page = contentOf(options)
      const addresses = allow.addresses === undefined ? null : new AddressList(allow.addresses)
      const consumers = allow.consumers === undefined ? null : new Set(allow.consumers)
      const takesHeader = headerTaker(allow.headers)
      const addressOf = addressReader(config)
      const seconds = Math.max(1, Math.ceil(retryAfter / 1000))
      const isAllowed = (request: FastifyRequest): boolean => {
        const address = addresses === null ? null : addressOf(request)
        if (address !== null && addresses!.has(address)) return true
        return consumers !== null && request.consumer != null && consumers.has(request.consumer.id)
      }
      /** Returns the error for a request, or null. With a page of its own, it sends the response, and calls nothing more. */
      const refusalOf = (request: FastifyRequest, reply: FastifyReply): Error | 'sent' | null => {
        // In any case, so that no service gets the secret.
        const hasHeader = takesHeader(request)
        if (!state.isOn || hasHeader || isAllowed(request)) return null
        if (page === null) return Object.assign(new UnderMaintenance(), { retryAfterMs: retryAfter })
        if (shadow !== null) {
          shadow(request, code)
          return null
        }
        refused(request, code)
        request.isOwnResponse = true
        request.failure = code
        const fields = { 'retry-after': seconds, 'cache-control': 'no-store', 'content-type': page.type }
        reply.code(503).headers(fields).send(page.bytes)
        return 'sent'
      }
      // The consumer is known once all methods of authentication have run.
      if (consumers !== null) {
        return {
          preParsing(request, reply, payload, done) {
            const refusal = refusalOf(request, reply)
            if (refusal !== 'sent') done(refusal, payload)
          }
        }
      }
      return {
        onRequest(request, reply, done) {
          const refusal = refusalOf(request, reply)
          if (refusal !== 'sent') done(refusal ?? undefined)
        }
      }
    }
  }
})

const digestOf = (text: string) => createHash('sha256').update(text).digest()

/**
 * Returns the function that removes the headers with these values from a request, and returns whether it may pass: all fields of
 * such a header must have the value. The time that it takes does not tell how much of a value is right.
 */
function headerTaker(headers: Readonly<Record<string, string>> = {}): (request: FastifyRequest) => boolean {
  const wanted = Object.entries(headers).map(([name, value]) => [name, digestOf(value)] as const)
  return (request) => {
    let passes = false
    for (const [name, digest] of wanted) {
      const matches = headerValues(request, name).map((value) => timingSafeEqual(digestOf(value), digest))
      if (!matches.includes(true)) continue
      removeHeader(request, name)
      if (!matches.includes(false)) passes = true
    }
    return passes
  }
}

function check(options: Options, at: string, checked: Checked): void {
  const { report, absolute } = checked
  if (!report.sound(at)) return
  const { enabled, whileFile, allow = {} } = options
  checkBody(at, options, checked)
  if (!enabled && whileFile !== undefined) report.warn(`${at}/whileFile`, 'no effect with enabled: false', 'key')
  if (whileFile !== undefined && !isPresent(dirname(absolute(whileFile))))
    report.warn(`${at}/whileFile`, `no such folder: ${dirname(absolute(whileFile))}`)
  checkedRanges(allow.addresses ?? [], `${at}/allow/addresses`, report)
}
