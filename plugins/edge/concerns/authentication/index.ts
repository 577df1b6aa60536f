/**
 * Rules for a route's methods of authentication: whether all or any must accept a request, and the consumer of requests without
 * credentials. The methods read them (authentication/methods.ts). This concern tells the service who the consumer is.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { AuthenticationMethod, Checked, Key } from '../../../../config/concern.ts'
import { declaredConsumers } from '../../../../config/consumers.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName, isGatewayHeader } from '../../../../config/header-names.ts'
import { didYouMean } from '../../../../config/nearest.ts'
import { orOff } from '../../../../config/schema/kit.ts'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { authenticationReasons as reasons } from '../../authentication/methods.ts'
import type { AuthenticationOptions } from '../../authentication/options.ts'
import { Authentication } from '../../authentication/options.ts'
import { decorateUpstreamHeaders, headerValue, setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import { warnOfUnknown } from '../../consumers/unknown.ts'
import { isShadow } from '../../shadow.ts'

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const authenticationReasons = reasons

export default edgeConcern({
  name: 'authentication',
  options: orOff(Authentication),
  apiFacts: ({ require, anonymous }) => ({
    combine: { isAll: require === 'all', isOptional: anonymous !== undefined }
  }),
  noShadow: 'the methods of authentication have it, each for itself',
  aliases: {
    multiAuth: 'write the methods side by side, and authentication: { require: any }',
    anonymous: 'write authentication: { anonymous: NAME }'
  },
  check: checkAuthentication,
  checkAll: checkMethods,
  explain({ require, anonymous }) {
    const texts = [
      ...(require === 'any' ? ['one method that accepts is enough'] : []),
      ...(anonymous === undefined ? [] : [`a request without credentials has the consumer ${anonymous}`])
    ]
    return texts.join('; ') || null
  },
  async plugin(fastify) {
    decorateUpstreamHeaders(fastify)
    return ({ forward }, routeOptions) => {
      const headers = Object.entries(forward ?? {}) as ['id' | 'groups' | 'tags', string][]
      if (headers.length === 0) return null
      dropHeaders(
        routeOptions,
        headers.map(([, header]) => header)
      )
      // After all `onRequest` hooks, since a plugin may set the consumer, too.
      return { preParsing: tell(headers) }
    }
  }
})

/** Returns the hook that adds the headers of the consumer. */
function tell(headers: readonly (readonly [property: 'id' | 'groups' | 'tags', header: string])[]) {
  const known = new WeakMap<Consumer, readonly (readonly [header: string, value: string])[]>()
  const valuesOf = (consumer: Consumer) =>
    headers.flatMap(([property, header]) => {
      const value = headerValue(consumer[property])
      return value ? [[header, value] as const] : []
    })
  return (request: FastifyRequest, _reply: FastifyReply, _payload: unknown, done: () => void): void => {
    const { consumer } = request
    if (consumer !== null) {
      let values = known.get(consumer)
      if (values === undefined) {
        values = valuesOf(consumer)
        known.set(consumer, values)
      }
      for (const [header, value] of values) setUpstreamHeader(request, header, value)
    }
    done()
  }
}

function checkAuthentication({ anonymous, forward }: AuthenticationOptions, at: string, checked: Checked): void {
  const { data, report } = checked
  if (!report.sound(at)) return
  const taken = new Map<string, string>()
  for (const [property, header] of Object.entries(forward ?? {})) {
    const place = pointer(at, 'forward', property)
    const other = taken.get(canonicalName(header))
    if (isGatewayHeader(header)) report.fault(place, `"${header}" is set by the gateway itself; choose another name`)
    else if (other !== undefined) report.fault(place, `"${header}" already carries the ${other}`)
    taken.set(canonicalName(header), property)
  }
  if (anonymous === undefined || !report.sound('/consumers')) return
  const names = declaredConsumers(data).map(({ name }) => name)
  if (names.length === 0 || names.includes(anonymous)) return
  report.warn(
    `${at}/anonymous`,
    `no consumer "${anonymous}" is declared, so it has no groups${didYouMean(anonymous, names)}`
  )
}

/** A key of a method of authentication. */
type MethodKey = Key & { readonly authenticates: AuthenticationMethod }

const isMethod = (key: Key): key is MethodKey => key.authenticates !== undefined

const namesOf = (keys: readonly Key[]): string => keys.map(({ name }) => name).join(', ')

/** Checks the methods that are in force together on a route, and the names of consumers in its split. */
function checkMethods(checked: Checked): void {
  const { data, keys, report } = checked
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const methods = keys.edge.filter(isMethod)
  const counted = methods.filter(({ authenticates }) => authenticates.counts !== null)
  const countsFailures = (policy: object) => counted.some(({ name }) => Boolean(Reflect.get(policy, name)))
  const uncounted = `has no effect without ${namesOf(counted)}: other failures are not counted`
  const top = '/edge/authentication/failures'
  const isIdle =
    data.plugins.length === 0 &&
    report.sound('/routes') &&
    !data.routes.some(({ edge }) => countsFailures({ ...data.edge, ...edge }))
  const failures = data.edge.authentication ? data.edge.authentication.failures : false
  if (isIdle && failures && report.at(top) !== undefined) {
    report.warn(top, uncounted, 'key')
  }
  const idleKept = new Set<string>()
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index, 'edge')
    if (report.sound(pointer('/routes', index, 'split'))) {
      route.split?.forEach(({ match }, share) => {
        const { consumers } = match ?? {}
        warnOfUnknown({ consumers }, 'consumer', pointer('/routes', index, 'split', share, 'match'), checked)
      })
    }
    if (!report.usable(at)) return
    const { edge: own = {} } = route
    const policy: EdgePolicy = { ...data.edge, ...own }
    const { authentication } = policy
    const place = own.authentication === undefined ? at : `${at}/authentication`
    const on = methods.filter(({ name }) => {
      const options: unknown = Reflect.get(policy, name)
      return options && !isShadow(options)
    })
    if (!on.every(({ name }) => report.sound(`${at}/${name}`) && report.sound(`/edge/${name}`))) return
    if (own.authentication) {
      const isSet = (key: string) => report.at(`${place}/${key}`) !== undefined
      const idle = on.length === 0 ? ['anonymous', 'require'].filter(isSet) : []
      for (const key of idle) report.warn(`${place}/${key}`, `has no effect without ${namesOf(methods)}`, 'key')
      if (own.authentication.failures && isSet('failures') && !countsFailures(policy)) {
        report.warn(`${place}/failures`, uncounted, 'key')
      }
    }
    if (on.length < 2) return
    const schemes = on.map(({ name, authenticates }) => authenticates.scheme?.(Reflect.get(policy, name)) ?? null)
    for (const { name } of on) {
      const other = on.find((method, index) => method.name !== name && schemes[index] !== null)
      const option = `${Reflect.get(own, name) === undefined ? '/edge' : at}/${name}/keepAuthorization`
      if (other === undefined || !Reflect.get(Reflect.get(policy, name), 'keepAuthorization') || idleKept.has(option)) {
        continue
      }
      idleKept.add(option)
      report.warn(option, `has no effect beside ${other.name}, which reads Authorization`, 'key')
    }
    if (authentication && authentication.require === 'any') return
    // Methods with the same scheme can check the same token.
    if (new Set(schemes.filter((scheme) => scheme !== null)).size > 1) {
      const inHeader = on.filter((_method, index) => schemes[index] !== null)
      const what = `${inHeader.map(({ name }) => name).join(' and ')} need the Authorization header each, so no request can satisfy all`
      report.fault(place, `${what}; set authentication: { require: any }`, 'key')
    } else if (!authentication) {
      const what = `each request needs all of ${namesOf(on)}; write authentication: { require: all } if so, or any`
      report.warn(place, what, 'key')
    }
  })
}
