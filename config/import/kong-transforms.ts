/** Plugins of Kong that change requests and responses, or respond themselves. */
import { addKongBody } from './bodies.ts'
import { kongCredentials } from './client-credentials.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { addRules, lower, pairsOf, respondWith } from './headers.ts'
import type { Convert } from './kong-scope.ts'
import { useRedis } from './redis.ts'
import { kongTemplate } from './templates.ts'
import type { Settings } from './yaml-text.ts'

/** Returns the names of `old:new`. */
const renamed = (config: Foreign | undefined, key: string): Record<string, string> => pairsOf(config?.texts(key) ?? [])

function operations(config: Foreign, key: 'headers' | 'querystring') {
  const [add, append, replace, remove, rename] = ['add', 'append', 'replace', 'remove', 'rename'].map((each) =>
    config.map(each)
  )
  return {
    remove: lower(remove?.texts(key) ?? []),
    rename: renamed(rename, key),
    set: pairsOf(replace?.texts(key) ?? []),
    add: pairsOf(add?.texts(key) ?? []),
    append: pairsOf(append?.texts(key) ?? [])
  }
}

const proxyCache: Convert = (config, { target, about, context: { draft } }) => {
  const seconds = config.number('cache_ttl') ?? 300
  const codes = config.texts('response_code')
  const headers = lower(config.texts('vary_headers'))
  const statuses = codes.length > 0 ? codes : ['200', '301', '404']
  const isRedis = config.text('strategy') === 'redis'
  if (isRedis) useRedis(config, draft)
  else config.skip('redis')
  target.cache = {
    ...(isRedis && { store: 'redis' }),
    ttl: Object.fromEntries(statuses.map((status) => [status, `${seconds}s`])),
    ...(headers.length > 0 && { key: { headers } })
  }
  if (config.has('content_type'))
    draft.note(about, `proxy-cache: content_type ${config.texts('content_type').join(', ')}: all types are stored here`)
  const methods = config.texts('request_method').filter((method) => method !== 'GET' && method !== 'HEAD')
  if (methods.length > 0)
    draft.note(about, `proxy-cache: request_method ${methods.join(', ')}: responses to GET and HEAD alone are stored`)
  const parameters = config.texts('vary_query_params')
  if (parameters.length > 0)
    draft.note(
      about,
      `proxy-cache: vary_query_params ${parameters.join(', ')}: the whole query counts; write edge.cache.key.ignoreQuery`
    )
  config.skip('memory', 'cache_control', 'storage_ttl', 'ignore_uri_case', 'bypass_on_err')
}

/** Returns the names of the parameters that all paths of a route have. */
function paramsOf(route: Settings | null): string[] {
  const paths = [(route?.match as Settings | undefined)?.path ?? []]
    .flat()
    .map((each) => (typeof each === 'string' ? each : ''))
  const [first = [], ...others] = paths.map((path) => [...path.matchAll(/:(\w+)/g)].map(([, name]) => name!))
  return first.filter((name) => others.every((each) => each.includes(name)))
}

/** Returns whether a service has a path before that of requests. */
const hasBasePath = (service: Settings | undefined): boolean =>
  service?.basePath !== undefined ||
  [service?.instances ?? []].flat().some((each) => typeof each === 'string' && /^\w+:\/\/[^/]+\/./.test(each))

/** Notes values that Kong reads as templates, and which are texts here. */
function noteTemplates({ add, set, append }: ReturnType<typeof operations>, note: (text: string) => void): void {
  for (const [name, value] of Object.entries({ ...add, ...set, ...append })) {
    if (value.includes('$('))
      note(`header ${name}: ${value} is a template of Kong: write it with {…}, as in plugins/edge/templates`)
  }
}

/** Returns routes that respond to requests with a header or a query parameter of this name. */
const triggered = (route: Settings, name: string, response: Settings, draft: Draft): Settings[] =>
  (['headers', 'query'] as const).map((part) => {
    const match = route.match as Settings
    const conditions = { ...((match[part] ?? {}) as Settings), [name]: { present: true } }
    const copy = { ...route, name: draft.name('route', `${String(route.name)}-${part}`) }
    respondWith(copy, 'response', response)
    return { ...copy, match: { ...match, [part]: conditions } }
  })

const strictly =
  'bodies that are malformed or larger than edge.body.maxSize are refused, where Kong passes them on unchanged'
const jsonOnly = `edge.body changes JSON only, where Kong changes forms, too; ${strictly}`

const requestTransformer: Convert = (config, { target, about, context: { draft } }) => {
  const note = (text: string) => draft.note(about, `request-transformer: ${text}`)
  const asTemplate = kongTemplate(paramsOf(about))
  addRules(target, 'request', operations(config, 'headers'), asTemplate, note)
  addRules(target, 'query', operations(config, 'querystring'), asTemplate, note)
  if (addKongBody(config, 'body', target, note)) draft.note(about, `request-transformer: ${jsonOnly}`)
  const uri = config.map('replace')?.text('uri')
  if (uri === undefined || about === null) return
  const groups = paramsOf(about).filter((each) => !/^any\d+$/.test(each))
  const path = uri
    .replace(/\$\(uri_captures(?:\.|\[["'])(\w+)(?:["']\])?\)/g, ':$1')
    .replace(/\$\(uri_captures\[(\d+)\]\)/g, (found, index: string) => {
      const name = groups[Number(index) - 1]
      return name === undefined ? found : `:${name}`
    })
  const isKnown =
    !path.includes('$') && (path.match(/:\w+/g) ?? []).every((each) => paramsOf(about).includes(each.slice(1)))
  if (isKnown && hasBasePath(draft.services[String(about.service)] as Settings | undefined))
    draft.undecided(about, `request-transformer: replace.uri ${uri}: it replaces the path of the service, too`)
  else if (isKnown) about.path = { rewrite: { path } }
  else draft.undecided(about, `request-transformer: replace.uri ${uri}: write path.rewrite`)
}

export const transforms: Readonly<Record<string, Convert>> = {
  'request-transformer': requestTransformer,
  'request-transformer-advanced': requestTransformer,
  'response-transformer': (config, { target, about, context: { draft } }) => {
    const headers = operations(config, 'headers')
    addRules(target, 'response', headers, undefined, (text) => draft.note(about, `response-transformer: ${text}`))
    noteTemplates(headers, (text) => draft.note(about, text))
    const note = (text: string) => draft.note(about, `response-transformer: ${text}`)
    if (addKongBody(config, 'json', target, note) && about !== null)
      draft.comment(about, `response-transformer: ${strictly}`)
  },
  'upstream-oauth': (config, { about, isShared, isAlone = false, context: { draft } }) => {
    const credentials = kongCredentials(config)
    const service = about === null ? undefined : (draft.services[String(about.service)] as Settings | undefined)
    const place = service === undefined ? 'for all services' : 'of a route alone'
    if (typeof credentials === 'string') draft.note(about, `upstream-oauth: ${credentials} is not supported`)
    else if (service === undefined || !(isShared || isAlone)) {
      draft.note(about, `upstream-oauth ${place}: write credentials under services.NAME.mesh, for a service of its own`)
    } else {
      service.mesh = { ...((service.mesh ?? {}) as Settings), credentials }
      draft.note(service, 'upstream-oauth: put the client secret in a variable, or in clientSecretFile')
    }
  },
  'request-termination': (config, { target, about, context }) => {
    const { draft } = context
    const status = config.number('status_code') ?? 503
    const body = config.text('body')
    const message = config.text('message')
    const contentType = config.text('content_type')
    const trigger = config.text('trigger')
    config.skip('echo')
    const content =
      body === undefined
        ? { json: { message: message ?? 'Service unavailable' } }
        : { body, ...(contentType !== undefined && { contentType }) }
    const response = { status, ...content }
    if (trigger !== undefined && about?.match !== undefined)
      context.variants = (route) => triggered(route, trigger, response, draft)
    else if (trigger !== undefined) draft.undecided(about, `request-termination with trigger ${trigger}: not converted`)
    else if (about?.match !== undefined) respondWith(about, 'response', response)
    else if (about === null && status === 503) target.maintenance = content
    else draft.undecided(about, 'request-termination: write maintenance, or a route with "response"')
  },
  redirect: (config, { about, context: { draft } }) => {
    const to = config.text('location')
    const keeps = config.flag('keep_incoming_path') === true
    const status = config.number('status_code') ?? 301
    if (about === null || about.match === undefined || to === undefined)
      return draft.undecided(about, 'redirect: write a route with "redirect"')
    if (keeps) return respondWith(about, 'redirect', { to: URL.parse(to)?.origin ?? to, status })
    // Without a path, `to` would get that of the request.
    const isBare = /^https?:\/\/[^/?#]+$/.test(to)
    respondWith(about, 'redirect', { to: isBare ? `${to}/` : to, query: 'drop', status })
  },
  'proxy-cache': proxyCache,
  'proxy-cache-advanced': proxyCache,
  'bot-detection': (config, { target, about, context: { draft } }) => {
    const expression = (text: string) => `/^.*(?:${text}).*$/`
    const [allow, deny] = ['allow', 'deny'].map((key) => config.texts(key).map(expression)) as [string[], string[]]
    if (deny.length > 0) {
      target.userAgent = { deny, ...(allow.length > 0 && { except: allow }) }
      draft.note(about, "bot-detection: Kong's own list of bots is not converted; add those to userAgent.deny")
    } else
      draft.undecided(about, "bot-detection: Kong's own list of bots is not converted; write userAgent: { deny: […] }")
  }
}
