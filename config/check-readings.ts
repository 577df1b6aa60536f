/**
 * Warns if a different spelling of a route's path reaches a less protected route, while common servers read both spellings as
 * the same path: then the protection can be bypassed. Spellings that `listen.paths` guards are refused by the gateway and
 * need no warning.
 */
import type { Steps } from '../plugins/time-slices.ts'
import { checkOverlaps } from './check-overlaps.ts'
import type { Checked } from './concern.ts'
import { pointer } from './faults.ts'
import { areSound } from './listeners.ts'
import type { PathPattern } from './path-pattern.ts'
import { pathPatterns, pathsOf } from './path-pattern.ts'
import type { PathReadings, ReadPath } from './path-reading.ts'
import { fold } from './path-reading.ts'
import { Protection, Protections } from './protection.ts'
import type { RouteTable } from './route-table.ts'
import type { RouteTables } from './route-tables.ts'
import { readPathOf, sampleOf, sampleRequest } from './sample-request.ts'
import type { Written } from './schema.ts'
import { writtenTargets } from './targets.ts'

type Route = Written['routes'][number]

interface Spelling {
  readonly path: ReadPath
  /** Text that names the servers which read it as the same path. */
  readonly by: string
  /** Key of `listen.paths` by which the gateway would refuse it; null if there is none. */
  readonly guard: keyof PathReadings | null
  /** True if the spelling matters only if both routes lead to the same service. */
  readonly sameService: boolean
}

export function* checkReadings(checked: Checked, tables: RouteTables<number>): Steps<void> {
  const { data, keys, report } = checked
  const paths = areSound(checked, 'paths') ? data.listen.paths : null
  if (paths === null || !report.sound('/edge')) return
  const protections = new Protections(keys)
  const protection = new Protection<Route>(({ edge, config, plugins }) =>
    protections.namesOf({ edge: { ...data.edge, ...edge }, config, plugins })
  )
  const servicesOf = (index: number) =>
    writtenTargets(pointer('/routes', index), data.routes[index]!, report).flatMap(({ services }) => services)
  // If all routes have the same concerns, none can lack any.
  const kinds = new Set<string>()
  for (const route of data.routes) {
    yield
    kinds.add(route === null ? '' : protection.namesOf(route).join())
  }
  yield* checkOverlaps(checked, tables, servicesOf, kinds.size < 2 ? null : protection)
  if (kinds.size < 2) return
  yield* checkTwins(checked, protection)
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.sound(at) || protection.namesOf(route).length === 0) continue
    const each = pathPatterns(route.match.path).flatMap((pattern) =>
      tables.with(route.match).map((table) => ({ pattern, table }))
    )
    const services = new Set(servicesOf(index))
    const sharesService: SharesService = (other) => servicesOf(other).some((service) => services.has(service))
    const open = exposedOnOtherListener(route, tables, data, protection, sharesService)
    if (open !== null) report.warn(`${at}/match/listeners`, open)
    for (const { pattern, table } of each) {
      const warning = exposed(route, pattern, paths, table, data, protection, sharesService)
      if (warning === null) continue
      report.warn(`${at}/match/path`, warning)
      break
    }
  }
}

/** Returns a warning if a spelling of this route's path reaches a less protected route. */
function exposed(
  route: Route,
  pattern: PathPattern,
  paths: PathReadings,
  table: RouteTable<number>,
  data: Written,
  protection: Protection<Route>,
  sharesService: SharesService
): string | null {
  const segments = sampleOf(pattern)
  if (segments === null) return null
  for (const { path, by, guard, sameService } of spellings(segments, pattern, paths)) {
    const found = table.find(sampleRequest(route.match, path))
    const other = found === null || found.ambiguous ? undefined : data.routes[found.value]
    if (other === undefined || other === route) continue
    if (sameService && !sharesService(found!.value)) continue
    const missing = protection.lacks(other, route)
    if (missing.length === 0) continue
    const text = `/${path.segments.join('/')}${path.trailingSlash ? '/' : ''}`
    const reached = `as this path, but the gateway sends it to the route "${other.name}" without ${missing.join(', ')}`
    const advice =
      guard === null
        ? `if a service does this, add ${missing.join(', ')} to "${other.name}"`
        : `listen.paths.${guard}: guard would refuse it`
    return `${by.replace('%', () => text)} ${reached}; ${advice}`
  }
  return null
}

/** Returns a warning if, on another listener, a less protected route forwards this route's path to the same service. */
function exposedOnOtherListener(
  route: Route,
  tables: RouteTables<number>,
  data: Written,
  protection: Protection<Route>,
  sharesService: SharesService
): string | null {
  const { listeners, path } = route.match
  if (listeners === undefined) return null
  const others = data.listeners.filter(({ name, redirect }) => !listeners.includes(name) && redirect === undefined)
  for (const pattern of pathPatterns(path)) {
    const segments = sampleOf(pattern)
    if (segments === null) continue
    const request = sampleRequest(route.match, readPathOf(segments, pattern.trailingSlash))
    for (const { name } of others) {
      const found = tables.of(name).find(request)
      const other = found === null ? undefined : data.routes[found.value]
      if (other === undefined || !sharesService(found!.value)) continue
      const missing = protection.lacks(other, route)
      if (missing.length === 0) continue
      const reached = `on the listener "${name}" the route "${other.name}" forwards this path to the same service`
      return `${reached} without ${missing.join(', ')}; restrict "${other.name}" by match.listeners, or change its service`
    }
  }
  return null
}

function spellings(segments: readonly string[], { end, trailingSlash }: PathPattern, paths: PathReadings): Spelling[] {
  const last = segments.at(-1)
  if (last === undefined) return []
  const path = (changed: readonly string[], slash = trailingSlash) => readPathOf(changed, slash)
  const upper = segments.map((segment) => segment.toUpperCase())
  const all: (Spelling | false)[] = [
    paths.case === 'distinct' && {
      path: path(segments.join() === upper.join() ? segments.map((segment) => segment.toLowerCase()) : upper),
      by: 'services that ignore case read "%"',
      guard: 'case',
      sameService: false
    },
    paths.trailingSlash === 'distinct' &&
      end === 'whole' && {
        path: path(segments, !trailingSlash),
        by: 'services that ignore a slash at the end read "%"',
        guard: 'trailingSlash',
        sameService: false
      },
    paths.trailingDot === 'distinct' && {
      path: path([...segments.slice(0, -1), `${last}.`]),
      by: 'services on Windows read "%"',
      guard: 'trailingDot',
      sameService: false
    },
    {
      path: path([...segments.slice(0, -1), `${last}.json`]),
      by: 'Spring before 5.3 and Struts read "%"',
      guard: null,
      sameService: true
    }
  ]
  return all.filter((spelling) => spelling !== false)
}

/** Warns of two routes whose paths differ only in details that common servers ignore. */
function* checkTwins({ data, report }: Checked, protection: Protection<Route>): Steps<void> {
  const known = new Map<string, Route>()
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.sound(at)) continue
    const { path, ...conditions } = route.match
    for (const each of pathsOf(path)) {
      const text = typeof each === 'string' ? each : each.exact
      const folded = text.split('/').map((segment) => fold(segment, { case: true, dot: true }))
      const key = JSON.stringify([folded, typeof each, conditions])
      const other = known.get(key)
      if (other === undefined || other === route) {
        known.set(key, route)
        continue
      }
      const missing = [...protection.lacks(other, route), ...protection.lacks(route, other)]
      if (missing.length === 0) continue
      const what = `some services do not distinguish this path from that of route "${other.name}", and only one of the two has`
      report.warn(`${at}/match/path`, `${what} ${missing.join(', ')}`)
    }
  }
}

/** A function that returns whether a route calls a service that the route with this index calls, too. */
type SharesService = (other: number) => boolean
