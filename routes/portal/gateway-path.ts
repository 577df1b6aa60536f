/** The path of a client for an operation of a service: the reverse of a route's `match` and `path`. */
import { pathsOf } from '../../config/path-pattern.ts'
import type { RouteConfig } from '../../config/schema.ts'

/** Returns a path template with parameters as `{name}`: `/users/:id(^[0-9]+$)` is `/users/{id}`. */
const templateOf = (pattern: string): string => pattern.replace(/:(\w+)(?:\(\^(?:[^()]|\([^()]*\))*\$\))?/g, '{$1}')

/** Returns a template without the names of its parameters, which services and routes choose on their own. */
const shapeOf = (template: string): string => template.replace(/\{[^{}]*\}/g, '{}')

const isBelow = (path: string, prefix: string): boolean =>
  prefix === '/' || path === prefix || path.startsWith(`${prefix}/`)

const joined = (prefix: string, path: string): string =>
  prefix === '/' ? path : path === '/' ? prefix : `${prefix}${path}`

/** Returns a template of the route with the names that the document has for the parameters of `from`. */
function renamed(template: string, from: string, document: string): string {
  const theirs = [...document.matchAll(/\{([^{}]*)\}/g)].map(([, name]) => name!)
  const ours = [...from.matchAll(/\{([^{}]*)\}/g)].map(([, name]) => name!)
  return template.replace(/\{([^{}]*)\}/g, (text, name: string) => {
    const index = ours.indexOf(name)
    return index === -1 || theirs[index] === undefined ? text : `{${theirs[index]}}`
  })
}

/**
 * Returns the path by which clients reach a path of the service through a route; null if they do not, or if that depends on a
 * regular expression. `path` is a template of the document, as the route calls the service.
 */
export function gatewayPath(route: Pick<RouteConfig, 'match' | 'path'>, path: string): string | null {
  for (const each of pathsOf(route.match.path)) {
    const found = typeof each === 'string' ? ofPattern(each, route.path, path) : ofWhole(each.exact, route.path, path)
    if (found !== null) return found
  }
  return null
}

function ofPattern(pattern: string, change: RouteConfig['path'], path: string): string | null {
  const isRest = pattern.endsWith('/*')
  if (!isRest && pattern.includes('*')) return null
  if (pattern.includes(':')) return isRest ? null : ofWhole(templateOf(pattern), change, path)
  const prefix = isRest ? pattern.slice(0, -2) || '/' : pattern
  const { strip, rewrite } = change ?? {}
  if (strip === undefined && rewrite === undefined) return isBelow(path, prefix) ? path : null
  if (strip !== undefined) {
    if (typeof strip === 'string' && strip.includes(':')) return null
    const client = joined(typeof strip === 'string' ? strip : prefix, path)
    return isBelow(client, prefix) ? client : null
  }
  if (rewrite?.prefix !== undefined) {
    const base = rewrite.prefix.replace(/\/+$/, '') || '/'
    if (!isBelow(path, base)) return null
    return joined(prefix, base === '/' ? path : path.slice(base.length) || '/')
  }
  return rewrite?.path === path ? prefix : null
}

function ofWhole(template: string, change: RouteConfig['path'], path: string): string | null {
  const { strip, rewrite } = change ?? {}
  if (rewrite?.path !== undefined) {
    const target = templateOf(rewrite.path)
    return shapeOf(target) === shapeOf(path) ? renamed(template, target, path) : null
  }
  if (rewrite !== undefined || strip === true) return null
  const client = strip === undefined ? path : joined(templateOf(strip), path)
  return shapeOf(client) === shapeOf(template) ? client : null
}
