/** Conditions of APISIX's routes, as those of `match`. */
import type { Foreign } from './foreign.ts'
import { anyOf, oneOrAll, prefixOf, wholeOf } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a path of APISIX: `/api/*` matches what begins with `/api/`, others match as a whole. */
const pathOf = (uri: string): unknown => {
  if (uri === '/*') return '/'
  if (uri.endsWith('/*')) return prefixOf(uri.slice(0, -1))
  return uri.includes(':') || uri.includes('*') ? uri : { exact: uri }
}

export const urisOf = (route: Foreign): string[] => [...route.texts('uri'), ...route.texts('uris')]

export function matchOf(route: Foreign, report: (text: string) => void): Settings {
  const hosts = [...route.texts('host'), ...route.texts('hosts')]
  const methods = route.texts('methods')
  const addresses = [...route.texts('remote_addr'), ...route.texts('remote_addrs')]
  const match: Settings = {
    path: oneOrAll(urisOf(route).map(pathOf)),
    ...(hosts.length > 0 && { hosts }),
    ...(methods.length > 0 && { methods }),
    ...(addresses.length > 0 && { addresses })
  }
  const vars = route.value('vars')
  if (vars !== undefined) addConditions(match, vars, report)
  for (const key of ['filter_func', 'script', 'script_id'])
    if (route.text(key) !== undefined) report(`${key}: not converted; write a plugin`)
  return match
}

/** Keys of `match` that are lists, by the variables of nginx. */
const lists: Readonly<Record<string, string>> = { request_method: 'methods', remote_addr: 'addresses', host: 'hosts' }

/** Adds conditions, all of which have to hold. `report` gets those that are not converted. */
export function addConditions(match: Settings, vars: unknown, report: (text: string) => void): void {
  if (!Array.isArray(vars)) report('vars: not converted')
  for (const each of Array.isArray(vars) ? (vars as unknown[]) : []) {
    const parts: unknown[] = Array.isArray(each) ? each : []
    const [variable, operator = '', value = ''] = parts.map(String)
    const given = parts[2]
    const isIn = ['in', 'ipmatch'].includes(operator.toLowerCase())
    const values = operator === '==' ? [value] : isIn ? (Array.isArray(given) ? given.map(String) : [value]) : null
    const [, kind = '', name = ''] = /^(http|arg|cookie)_(.+)$/.exec(variable ?? '') ?? []
    const key = { http: 'headers', arg: 'query', cookie: 'cookies' }[kind]
    const list = Object.hasOwn(lists, variable ?? '') ? lists[variable!] : undefined
    const wanted = operator === '~~' ? { regex: wholeOf(value) } : values === null ? undefined : anyOf(values)
    const named = kind === 'http' ? name.replaceAll('_', '-') : name
    const before = (key === undefined ? {} : (match[key] ?? {})) as Settings
    if (parts.length === 3 && list !== undefined && values !== null && match[list] === undefined) match[list] = values
    else if (parts.length === 3 && key !== undefined && wanted !== undefined && !Object.hasOwn(before, named))
      match[key] = { ...before, [named]: wanted }
    else report(`vars ${JSON.stringify(each)}: not converted`)
  }
}
