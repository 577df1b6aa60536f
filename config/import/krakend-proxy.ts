/** Settings of KrakenD's proxies: static data, changes of merged responses; and changes of headers. */
import type { Foreign } from './foreign.ts'
import { addRules } from './headers.ts'
import type { Convert } from './krakend-scope.ts'
import { literal } from './templates.ts'
import type { Settings } from './yaml-text.ts'

/** Returns whether settings are those of a call, which is no route. */
const isCall = (route: Settings | null): route is Settings => route !== null && route.match === undefined

const pointerOf = (name: string): string => `/${name.split('.').join('/')}`

/** Returns the steps of a flatmap_filter; null if one has no counterpart. */
function stepsOf(filters: readonly Foreign[]): Settings[] | null {
  const steps = filters.map((filter) => {
    const [from = '', to = ''] = filter.texts('args').map(pointerOf)
    const type = filter.text('type')
    if (type === 'move') return { move: from, to }
    if (type === 'del') return { delete: from }
    return type === 'append' ? { append: from, to } : null
  })
  return steps.includes(null) ? null : steps.map((step) => step!)
}

const conditions: Readonly<Record<string, string>> = {
  always: 'always',
  success: 'complete',
  complete: 'complete',
  errored: 'incomplete',
  incomplete: 'incomplete'
}

export const proxy: Convert = (config, _edge, draft, route) => {
  const compose = route?.compose as Settings | undefined
  const response = (compose?.response ?? {}) as Settings
  config.skip('sequential', 'combiner', 'shadow', 'shadow_timeout')
  const steps = config.has('flatmap_filter') ? stepsOf(config.maps('flatmap_filter')) : null
  if (steps !== null && compose !== undefined) compose.response = { ...response, edit: steps }
  else if (steps !== null && isCall(route)) route.edit = steps
  else if (config.has('flatmap_filter')) draft.note(route, 'proxy.flatmap_filter: write edit of a composed route')
  const fixed = config.has('static') ? config.mapOrEmpty('static') : undefined
  const value = fixed?.map('data')
  const when = conditions[fixed?.text('strategy') ?? 'always']
  if (value !== undefined && when !== undefined && compose !== undefined) {
    const data = Object.fromEntries(value.keys.map((key) => [key, value.value(key)]))
    compose.response = { ...((compose.response ?? {}) as Settings), add: [{ when, value: data }] }
  } else if (fixed !== undefined) draft.note(route, 'proxy.static: write mesh.fallback')
  for (const each of [fixed, value]) each?.skip(...each.keys)
  for (const key of config.keys.filter((each) => config.isUnread(each)))
    draft.note(route, `proxy.${key}: not converted`)
  config.skip(...config.keys)
}

/** `modifier/martian`: changes of headers, alone or in a group. */
export const martian: Convert = (config, edge, draft, route) => {
  for (const kind of config.keys) {
    const options = config.mapOrEmpty(kind)
    if (kind === 'fifo.Group') {
      for (const each of options.maps('modifiers')) martian(each, edge, draft, route)
      options.skip(...options.keys)
    } else if (!isHeaders(kind, options, edge, route)) draft.note(route, `modifier/martian: ${kind}: not converted`)
    options.skip(...options.keys)
  }
}

/** Adds the change of a header. Returns false for other modifiers. */
function isHeaders(kind: string, options: Foreign, edge: Settings, route: Settings | null): boolean {
  const scopes = options.texts('scope')
  const [name, value = ''] = [options.text('name')?.toLowerCase(), options.text('value')]
  const operation = { 'header.Modifier': 'set', 'header.Append': 'append', 'header.Blacklist': 'remove' }[kind]
  const names = options.texts('names').map((each) => each.toLowerCase())
  const rules = operation === 'remove' ? { remove: names } : { [operation ?? '']: { [name ?? '']: value } }
  if (operation === undefined || (operation !== 'remove' && name === undefined)) return false
  if (isCall(route)) {
    if (operation !== 'set' || scopes.includes('response')) return false
    route.headers = { ...((route.headers ?? {}) as Settings), [name!]: literal(value) }
    return true
  }
  for (const scope of ['request', 'response'] as const) if (scopes.includes(scope)) addRules(edge, scope, rules)
  return true
}
