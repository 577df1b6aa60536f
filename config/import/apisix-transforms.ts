/** Plugins of APISIX that change requests and responses, or respond themselves. */
import type { Convert } from './apisix-scope.ts'
import type { Foreign } from './foreign.ts'
import { addRules, lower } from './headers.ts'
import { rewriteOf } from './patterns.ts'
import { nginxTemplate } from './templates.ts'
import type { Settings } from './yaml-text.ts'

/** Adds the rules of `headers`: a mapping of `set`, `add` and `remove`, or of names and values, of which an empty one removes. */
function headerRules(
  config: Foreign,
  edge: Settings,
  direction: 'request' | 'response',
  note: (text: string) => void
): void {
  const asTemplate = nginxTemplate(direction)
  const headers = config.map('headers')
  if (headers === undefined) return
  const isRules = ['set', 'add', 'remove'].some((key) => headers.has(key))
  const textsOf = (fields: Foreign | undefined) =>
    Object.entries(
      Object.fromEntries((fields?.keys ?? []).map((name) => [name.toLowerCase(), fields!.text(name) ?? '']))
    )
  if (isRules) {
    addRules(
      edge,
      direction,
      {
        remove: lower(headers.texts('remove')),
        set: Object.fromEntries(textsOf(headers.map('set'))),
        append: Object.fromEntries(textsOf(headers.map('add')))
      },
      asTemplate,
      note
    )
  } else {
    const all = textsOf(headers)
    addRules(
      edge,
      direction,
      {
        remove: all.filter(([, value]) => value === '').map(([name]) => name),
        set: Object.fromEntries(all.filter(([, value]) => value !== ''))
      },
      asTemplate,
      note
    )
  }
}

/** Variables of nginx that are parts of the key of a stored response here, too. */
const partOfKey: ReadonlySet<string> = new Set(
  'host http_host scheme uri request_uri is_args args query_string request_method'.split(' ')
)

export const transforms: Readonly<Record<string, Convert>> = {
  'proxy-rewrite': (config, { edge, route }, { draft }) => {
    const uri = config.text('uri')
    const [regex, to] = config.texts('regex_uri')
    if (route === null) return draft.note(null, 'proxy-rewrite for all routes: not converted')
    if (regex !== undefined) route.path = rewriteOf(regex, to ?? '')
    else if (uri !== undefined && /[$:*]/.test(uri))
      draft.undecided(route, `proxy-rewrite: uri ${uri}: write path.rewrite`)
    else if (uri !== undefined) route.path = { rewrite: { path: uri } }
    const host = config.text('host')
    if (host !== undefined && /[.:]/.test(host)) edge.host = host
    else if (host !== undefined) draft.note(route, `proxy-rewrite: host ${host}: write edge.host`)
    config.skip('use_real_request_uri_unsafe')
    headerRules(config, edge, 'request', (text) => draft.note(route, `proxy-rewrite: ${text}`))
    if (config.has('method')) draft.note(route, `${config.where}.method: not converted`)
    config.skip('method')
  },
  'response-rewrite': (config, { edge, route }, { draft }) => {
    headerRules(config, edge, 'response', (text) => draft.note(route, `response-rewrite: ${text}`))
    for (const key of ['body', 'status_code', 'filters', 'vars'].filter((each) => config.has(each))) {
      draft.note(route, `${config.where}.${key}: not converted`)
    }
    config.skip('body', 'body_base64', 'status_code', 'filters', 'vars')
  },
  'proxy-cache': (config, { edge, route }, { draft }) => {
    const seconds = config.text('cache_ttl')
    const statuses = config.texts('cache_http_status')
    const ttl = (statuses.length > 0 ? statuses : ['200', '301', '404']).map((status) => [status, `${seconds}s`])
    const parts = config.texts('cache_key').flatMap((each) => each.match(/\$\{?\w+\}?/g) ?? [])
    const names = parts.map((each) => each.replace(/[${}]/g, '')).filter((each) => !partOfKey.has(each))
    const headers = names.filter((each) => each.startsWith('http_')).map((each) => each.slice(5).replaceAll('_', '-'))
    const others = names.filter((each) => !each.startsWith('http_'))
    edge.cache = {
      ...(seconds !== undefined && { ttl: Object.fromEntries(ttl) }),
      ...(headers.length > 0 && { key: { headers } })
    }
    // Without a part of the key, a caller would get the response to another one.
    if (others.length > 0) draft.undecided(route, `proxy-cache: cache_key ${others.join(', ')}: not converted`)
    for (const key of ['cache_bypass', 'no_cache'].filter((each) => config.has(each)))
      draft.undecided(route, `proxy-cache: ${key} ${config.texts(key).join(', ')}: not converted; more would be stored`)
    const methods = config.texts('cache_method').filter((method) => method !== 'GET' && method !== 'HEAD')
    if (methods.length > 0)
      draft.note(route, `${config.where}.cache_method ${methods.join(', ')}: GET and HEAD alone are stored`)
    config.skip('cache_zone', 'cache_strategy', 'hide_cache_headers', 'cache_control')
  },
  'ua-restriction': (config, { edge }) => {
    const expression = (text: string) => `/^.*(?:${text}).*$/`
    const allow = config.texts('allowlist').map(expression)
    const deny = config.texts('denylist').map(expression)
    edge.userAgent = {
      ...(allow.length > 0 ? { allow } : { deny }),
      empty: config.flag('bypass_missing') === true ? 'pass' : 'refuse'
    }
    config.skip('message')
  }
}
