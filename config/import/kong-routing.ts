/** Plugins of Kong that choose another service, or its timeouts. */
import { duration } from './draft.ts'
import type { Convert, KongContext } from './kong-scope.ts'
import { targetsOf } from './kong-services.ts'
import type { Settings } from './yaml-text.ts'

/** Returns the scheme of the instances of a service. */
function protocolOf({ draft }: KongContext, service: unknown): string {
  const [first] = ((draft.services[String(service)] as Settings | undefined)?.instances ?? []) as unknown[]
  const url = typeof first === 'string' ? first : String((first as Settings | undefined)?.url ?? '')
  return /^\w+(?=:)/.exec(url)?.[0] ?? 'http'
}

/** Returns the name of a service for an upstream or host, which is added once. */
function serviceFor(context: KongContext, host: string, port: string, like: unknown): string {
  const protocol = protocolOf(context, like)
  const key = `${protocol} ${host} ${port}`
  const known = context.routed.get(key)
  if (known !== undefined) return known
  const name = context.draft.name('service', host)
  context.routed.set(key, name)
  const settings: Settings = {}
  const mesh = targetsOf({ protocol, host, port, path: '' }, host, settings, context.of)
  if (Object.keys(mesh).length > 0) settings.mesh = mesh
  context.draft.services[name] = settings
  return name
}

const routeByHeader: Convert = (config, { about, context }) => {
  const rules = config.maps('rules').map((rule) => {
    const condition = rule.map('condition')
    const headers = (condition?.keys ?? []).map((name) => [name.toLowerCase(), condition!.text(name) ?? ''])
    return { upstream: rule.text('upstream_name') ?? '', headers: Object.fromEntries(headers) as Settings }
  })
  if (about === null || about.service === undefined || rules.some(({ headers }) => Object.keys(headers).length === 0))
    return context.draft.note(about, 'route-by-header: write split with match.headers at the routes')
  const { service } = about
  const port = protocolOf(context, service) === 'https' ? '443' : '80'
  delete about.service
  about.split = [
    ...rules.map(({ upstream, headers }) => ({
      service: serviceFor(context, upstream, port, service),
      match: { headers }
    })),
    { service, weight: 1 }
  ]
}

const canary: Convert = (config, { about, context }) => {
  const percentage = config.number('percentage')
  const host = config.text('upstream_host')
  const [port, uri] = [config.text('upstream_port'), config.text('upstream_uri')]
  const [hash, header] = [config.text('hash') ?? 'consumer', config.text('hash_header')]
  config.skip(...config.keys)
  if (
    about?.service === undefined ||
    percentage === undefined ||
    host === undefined ||
    hash === 'allow' ||
    hash === 'deny'
  )
    return context.draft.note(about, 'canary: write split, by weight or with match')
  const { service } = about
  const other = serviceFor(context, host, port ?? (protocolOf(context, service) === 'https' ? '443' : '80'), service)
  delete about.service
  const share = Math.round(percentage * 100)
  about.split = [
    { service, weight: 10_000 - share },
    { service: other, weight: share }
  ]
  if (hash !== 'none') about.stickOn = hash === 'header' ? `header:${header}` : hash
  if (uri !== undefined) context.draft.note(about, `canary: upstream_uri ${uri}: write basePath of the service`)
}

export const routing: Readonly<Record<string, Convert>> = {
  'route-by-header': routeByHeader,
  canary,
  'upstream-timeout': (config, { about, context: { draft } }) => {
    const read = config.number('read_timeout')
    config.skip('connect_timeout', 'send_timeout')
    if (about?.match === undefined || read === undefined)
      return draft.note(about, 'upstream-timeout: write mesh.timeout at the routes')
    about.mesh = { ...((about.mesh ?? {}) as Settings), timeout: duration(read) }
  }
}
