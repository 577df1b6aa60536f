/** Middlewares of Traefik that change paths. */
import { prefixOf, rewriteOf } from './patterns.ts'
import type { Convert } from './traefik-scope.ts'
import type { Settings } from './yaml-text.ts'

type Rewrite = { prefix?: string; path?: string; regex?: string; to?: string }
type Change = { strip?: string; rewrite?: Rewrite }

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

/** Returns the only path of a route, if it is a plain prefix. */
function plainPath(route: Settings): string | undefined {
  const { path } = route.match as Settings
  return typeof path === 'string' && !/[:*]/.test(path) ? path : undefined
}

/** Returns a change after which each path has a prefix more. */
function prefixed(prefix: string, before: Change | undefined, matched: string | undefined): Change {
  const { strip, rewrite } = before ?? {}
  const below = (path: string) => (path === '/' ? prefix || '/' : `${prefix}${path}`)
  if (rewrite?.path !== undefined) return { rewrite: { path: below(rewrite.path) } }
  if (rewrite?.prefix !== undefined) return { rewrite: { prefix: below(rewrite.prefix) } }
  if (rewrite !== undefined) return { rewrite: { ...rewrite, to: `${prefix}${rewrite.to}` } }
  if (strip === undefined)
    return { rewrite: matched === undefined ? { regex: '^(.*)$', to: `${prefix}$1` } : { prefix: below(matched) } }
  const base = prefixOf(strip)
  if (matched !== undefined && `${matched}/`.startsWith(`${base}/`))
    return { rewrite: { prefix: below(matched.slice(base.length) || '/') } }
  return { rewrite: { regex: `^${escaped(base)}/?(.*)$`, to: `${prefix}/$1` } }
}

/** Sets the change of a path, unless there is one before it. */
const change: (...of: [...Parameters<Convert>, settings: Settings]) => void = (options, place, name, settings) => {
  const { route, draft } = place
  if (route.path === undefined) route.path = settings
  else draft.note(route, `middleware ${name} (${options.where}) after another change of the path: write path.rewrite`)
}

export const paths: Readonly<Record<string, Convert>> = {
  stripPrefix: (options, place, name) => {
    const prefixes = options.texts('prefixes').map(prefixOf)
    options.skip('forceSlash')
    const [only = '/'] = prefixes
    const longestFirst = [...prefixes].sort((a, b) => b.length - a.length).map(escaped)
    const several = { rewrite: { regex: `^(?:${longestFirst.join('|')})/?(.*)$`, to: '/$1' } }
    change(options, place, name, prefixes.length === 1 ? { strip: only } : several)
  },
  addPrefix: (options, { route }) => {
    const prefix = (options.text('prefix') ?? '').replace(/\/+$/, '')
    route.path = prefixed(prefix, route.path as Change | undefined, plainPath(route))
  },
  replacePath: (options, { route }) => {
    route.path = { rewrite: { path: options.text('path') } }
  },
  replacePathRegex: (options, place, name) =>
    change(options, place, name, rewriteOf(options.text('regex') ?? '', options.text('replacement') ?? '')),
  stripPrefixRegex: (options, place, name) => {
    const expressions = options.texts('regex').map((each) => each.replace(/^\^/, '').replace(/\/$/, ''))
    const groups =
      expressions
        .join('')
        .replace(/\\./g, '')
        .match(/\((?!\?[:=!])/g)?.length ?? 0
    if (expressions.length === 0 || expressions.some((each) => /(?<!\\)\$$/.test(each)))
      return place.draft.note(place.route, `${options.where}: write path.rewrite`)
    const regex = `^(?:${expressions.join('|')})/?(.*)$`
    change(options, place, name, { rewrite: { regex, to: `/$${groups + 1}` } })
  }
}
