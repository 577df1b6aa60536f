/**
 * Groups of routes: settings that several routes share. They are merged into the routes before validation, so all checks see
 * complete routes; faults name the place in the group.
 */
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'

type Mapping = Record<string, unknown>

/** Mappings that are merged key by key; the route's own key wins. */
const merged: ReadonlySet<string> = new Set(['match', 'path', 'edge', 'mesh', 'forward', 'config'])
/** Conditions are merged by name: those of the group also apply to a route that has others. */
const conditions: ReadonlySet<string> = new Set(['headers', 'query', 'cookies'])
/** Keys of which a route has one: if it sets any of them, it inherits none. */
const exclusive = [['service', 'split', 'compose', 'response', 'redirect', 'files', 'portal'], ['strip', 'rewrite']] // biome-ignore format: a list

const isMapping = (value: unknown): value is Mapping =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isTop = (at: string) => /^\/routes\/\d+$/.test(at)
const isMatch = (at: string) => /^\/routes\/\d+\/match$/.test(at)

/** Settings of groups by their places. */
interface Shared {
  /** By the place in a route: the place in the group from which it was inherited. */
  readonly origins: Map<string, string>
  /** Places of settings that some route does not inherit, because it has its own. */
  readonly replaced: Set<string>
}

/** Merges the settings of groups into the routes that name them. Warns of those that no route inherits. */
export function mergeGroups(data: object, report: Report): void {
  const { groups, routes } = data as Mapping
  if (!isMapping(groups) || !Array.isArray(routes)) return
  const shared: Shared = { origins: new Map(), replaced: new Set() }
  for (const [index, route] of routes.entries()) {
    if (!isMapping(route) || typeof route.group !== 'string' || !Object.hasOwn(groups, route.group)) continue
    const group = groups[route.group]
    if (isMapping(group)) merge(route, group, pointer('/routes', index), pointer('/groups', route.group), shared)
  }
  report.inherit(shared.origins)
  const inherited = new Set(shared.origins.values())
  for (const place of shared.replaced) {
    // Conditions may be inherited one by one, or together.
    if (inherited.has(place) || inherited.has(place.slice(0, place.lastIndexOf('/')))) continue
    report.warn(place, 'no effect: each route of this group has its own setting in place of it', 'key')
  }
}

function merge(own: Mapping, group: Mapping, at: string, from: string, shared: Shared): void {
  const { origins, replaced } = shared
  const written = new Set(Object.keys(own))
  for (const [key, value] of Object.entries(group)) {
    const [place, origin] = [pointer(at, key), pointer(from, key)]
    const current = own[key]
    if (!written.has(key)) {
      if (exclusive.some((keys) => keys.includes(key) && keys.some((each) => written.has(each)))) {
        replaced.add(origin)
        continue
      }
      if (isTop(at) && merged.has(key) && isMapping(value)) {
        // A mapping of the route's own, which may lack a key that groups do not need.
        const inner = {}
        own[key] = inner
        merge(inner, value, place, origin, shared)
        continue
      }
      own[key] = structuredClone(value)
      origins.set(place, origin)
    } else if (isMapping(current) && isMapping(value)) {
      const isMerged = isTop(at) ? merged.has(key) : isMatch(at) && conditions.has(key)
      if (isMerged) merge(current, value, place, origin, shared)
      else replaced.add(origin)
    } else if (key === 'plugins' && Array.isArray(current) && Array.isArray(value)) {
      for (const [item, name] of value.entries()) {
        if (current.includes(name)) continue
        origins.set(pointer(place, current.push(name) - 1), pointer(origin, item))
      }
    } else replaced.add(origin)
  }
}
