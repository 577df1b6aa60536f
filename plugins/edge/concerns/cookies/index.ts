/**
 * Changes cookies: those that the service gets, and those that it sets. Runs after the rules for headers, whose templates refer to
 * the cookies of the client.
 */
import type { FastifyRequest } from 'fastify'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { isComposed } from '../../../../config/targets.ts'
import { token } from '../../../http-syntax.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import { checkParams, checkTemplate, routesWith } from '../../templates/check.ts'
import { uncountedFields } from '../../templates/client-fields.ts'
import { warnOfIdleRules } from '../../templates/idle-rules.ts'
import { isIdentity, sourcesIn, usesFact } from '../../templates/source.ts'
import type { CookiesOptions } from './options.ts'
import { CookiesOrOff } from './options.ts'
import { isPlain, requestRules } from './request.ts'
import { responseRules } from './response.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    cookies?: CookiesOptions | false
  }
}

const valued = ['set', 'add'] as const

export default edgeConcern({
  name: 'cookies',
  options: CookiesOrOff,
  noShadow: 'it refuses no request',
  protects: false,
  needs: (['claims', 'consumer'] as const).map((fact) => ({ fact, option: 'request', value: usesFact(valued, fact) })),
  aliases: {
    'requestCookies|cookie': 'write cookies: { request: … }',
    'responseCookies|setCookie': 'write cookies: { response: … }'
  },
  check,
  *checkAll(checked) {
    for (const { at, options, route } of routesWith<CookiesOptions>('cookies', checked)) {
      yield
      for (const operation of valued) {
        for (const [name, text] of Object.entries(options.request?.[operation] ?? {})) {
          checkParams(pointer(at, 'request', operation, name), text, route, checked)
        }
      }
      if (isComposed(route) && options.response !== undefined) {
        checked.report.warn(`${at}/response`, 'has no effect with compose: clients get no cookies of services', 'key')
      }
    }
  },
  explain: ({ request, response }) =>
    Object.entries({ 'to the service': request, 'to the client': response })
      .flatMap(([where, rules]) => (rules === undefined ? [] : [`${where}: ${Object.keys(rules).join(', ')}`]))
      .join('; '),
  async plugin(fastify, { config: gateway }) {
    decorateUpstreamHeaders(fastify)
    return ({ request: toService, response }, route) => {
      const { config } = route
      const isBridged = config?.route?.isBridged === true
      const hasParts = config?.route !== undefined && isComposed(config.route)
      const change =
        toService === undefined ? null : requestRules(toService, isBridged, uncountedFields(fastify, route, gateway))
      const rewrite = response === undefined || hasParts ? null : responseRules(response)
      return {
        preParsing(
          request: FastifyRequest,
          _reply: unknown,
          payload: unknown,
          done: (error: null, payload: unknown) => void
        ) {
          change?.(request)
          if (rewrite !== null) {
            const { onServiceResponse } = request
            request.onServiceResponse = (headers, status) => {
              // Before the rules for headers, which may move the service's cookies to those of the gateway.
              const changed = rewrite(headers)
              if (changed !== headers) request.serviceHeaders ??= headers
              return onServiceResponse?.(changed, status) ?? changed
            }
          }
          done(null, payload)
        }
      } as object
    }
  }
})

const literalFault = (text: string): string | null =>
  isPlain(text)
    ? null
    : 'a cookie cannot carry blanks, quotes, commas, semicolons, backslashes and characters beyond ASCII'

function check(options: CookiesOptions, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.sound(at)) return
  const { request, response } = options
  if (request !== undefined) {
    warnOfIdleRules(request, `${at}/request`, { canonical: (name) => name, isStrict: true }, report)
  }
  for (const operation of valued) {
    for (const [name, text] of Object.entries(request?.[operation] ?? {})) {
      const place = pointer(at, 'request', operation, name)
      if (!token.test(name)) report.fault(place, `"${name}" is not the name of a cookie`, 'key')
      checkTemplate(place, text, false, literalFault, checked)
      if (operation === 'add' && sourcesIn(text).some(isIdentity)) {
        report.fault(place, 'clients could send this cookie themselves; write it under "set", which replaces it', 'key')
      }
    }
  }
  for (const [from, to] of Object.entries(request?.rename ?? {})) {
    const place = pointer(at, 'request', 'rename', from)
    if (!token.test(from)) report.fault(place, `"${from}" is not the name of a cookie`, 'key')
    else if (from === to) report.fault(place, 'changes nothing: both names are the same', 'key')
  }
  if (response === undefined) return
  const { remove, names, ...attributes } = response
  if (remove === undefined && Object.keys(attributes).length === 0) {
    report.fault(`${at}/response`, 'changes nothing: write "remove", or attributes such as "sameSite"')
  }
  if (names !== undefined && Object.keys(attributes).length === 0) {
    report.warn(`${at}/response/names`, 'has no effect without attributes such as "sameSite"', 'key')
  }
  names?.forEach((name, index) => {
    if (remove?.includes(name))
      report.warn(pointer(at, 'response', 'names', index), 'has no effect: "remove" removes it')
  })
  if (attributes.sameSite === 'None' && attributes.secure !== true) {
    report.warn(`${at}/response/sameSite`, 'browsers refuse such cookies without Secure: set secure: true')
  }
}
