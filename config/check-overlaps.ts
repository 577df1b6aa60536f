/**
 * Warns of routes that take requests of other routes: a route that never matches because of another one's priority, and a less
 * protected route that a client can reach instead of a protected one, since it chooses headers, query and cookies itself.
 */
import type { Steps } from '../plugins/time-slices.ts'
import type { Checked } from './concern.ts'
import { pointer } from './faults.ts'
import { conditionsOf, valueKinds } from './match-conditions.ts'
import { covers, pathPatterns } from './path-pattern.ts'
import type { Protection } from './protection.ts'
import { methodsOf } from './route-table.ts'
import type { RouteTables } from './route-tables.ts'
import { readPathOf, sampleOf, sampleRequest } from './sample-request.ts'
import type { RouteMatch, Written } from './schema.ts'

type Route = Written['routes'][number]

/** Kinds of conditions that a client meets or does not meet as it likes. */
const chosenKind = (match: RouteMatch) => valueKinds.find((kind) => match[kind] !== undefined)

/** `servicesOf`: the services of a route, by its index; `protection`: null if all routes are protected alike. */
export function* checkOverlaps(
  { data, report }: Checked,
  tables: RouteTables<number>,
  servicesOf: (index: number) => readonly string[],
  protection: Protection<Route> | null
): Steps<void> {
  const isConcerned = ({ match, priority }: Route) => priority !== 0 || chosenKind(match) !== undefined
  if (!data.routes.some((route, index) => report.sound(pointer('/routes', index)) && isConcerned(route))) return
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.sound(at)) continue
    const { before, after } = neighbours(route, index, tables)
    const cover = [...before].find((other) => isCovered(route, data.routes[other]!, data))
    if (cover !== undefined) {
      const { name } = data.routes[cover]!
      const why = `route "${name}" (${report.where(pointer('/routes', cover))}) has a higher priority and matches all of its requests`
      report.warn(`${at}/match`, `no request reaches this route: ${why}`)
    }
    if (protection === null) continue
    const services = new Set(servicesOf(index))
    const missingIn = (other: number) =>
      servicesOf(other).some((service) => services.has(service)) ? protection.lacks(data.routes[other]!, route) : []
    for (const other of before) {
      const { match, priority } = data.routes[other]!
      const kind = chosenKind(match)
      const missing = missingIn(other)
      const isReachable = match.addresses === undefined && (kind !== undefined || priority > route.priority)
      if (missing.length === 0 || !isReachable) continue
      const what = `with this ${kind === undefined ? 'priority' : 'condition'}, clients reach the service of route "${route.name}" under its path`
      const place = pointer('/routes', other, ...(kind === undefined ? ['priority'] : ['match', kind]))
      report.warn(place, `${what} without ${missing.join(', ')}; add ${missing.join(', ')} here, or change the service`)
    }
    const kind = chosenKind(route.match)
    const open = kind && [...after].find((other) => missingIn(other).length > 0)
    if (open === undefined) continue
    const { name } = data.routes[open]!
    const missing = missingIn(open).join(', ')
    const what = `requests that do not meet this condition reach the same service by route "${name}" without ${missing}`
    report.warn(`${at}/match/${kind}`, `${what}; add ${missing} to "${name}", or change its service`)
  }
}

/** Returns the routes that may take requests of a route, by their index: those tried before it, and those tried after it. */
function neighbours({ match }: Route, index: number, tables: RouteTables<number>) {
  const before = new Set<number>()
  const after = new Set<number>()
  for (const pattern of pathPatterns(match.path)) {
    const segments = sampleOf(pattern)
    if (segments === null) continue
    const samples = pattern.end === 'prefix' ? [segments, [...segments, 'x']] : [segments]
    for (const table of tables.with(match)) {
      for (const sample of samples) {
        const request = sampleRequest(match, readPathOf(sample, pattern.trailingSlash))
        for (const method of methodsOf(match)) {
          let group = before
          for (const other of table.all({ ...request, method })) {
            if (other === index) group = after
            else group.add(other)
          }
        }
      }
    }
  }
  return { before, after }
}

/** Returns whether another route, which is tried first, matches every request of a route. */
function isCovered(route: Route, other: Route, { listeners }: Written): boolean {
  if (other.priority <= route.priority) return false
  const methods = methodsOf(other.match)
  if (!methodsOf(route.match).every((method) => methods.includes(method))) return false
  const on = route.match.listeners ?? listeners.map(({ name }) => name)
  if (other.match.listeners && !on.every((name) => other.match.listeners!.includes(name))) return false
  const names = other.match.hosts
  const isNamed = (host: string) =>
    names!.some((name) => name === host || (name.startsWith('*.') && host.replace(/^\*/, '').endsWith(name.slice(1))))
  if (names !== undefined && route.match.hosts?.every(isNamed) !== true) return false
  const met = metBy(route.match)
  if (!keysOf(other.match).every((key) => met.has(key))) return false
  const patterns = pathPatterns(other.match.path)
  return pathPatterns(route.match.path).every((each) => patterns.some((pattern) => covers(pattern, each)))
}

/** Returns the keys of the conditions of a match. */
function keysOf(match: RouteMatch): string[] {
  const { names, values, others } = conditionsOf(match)
  const exact = values.split('\n')
  return [...names.map((name, at) => JSON.stringify(['headers', name, exact[at]])), ...others.map(({ key }) => key)]
}

/** Returns the keys of the conditions that every request of a match meets: also presence, where a value is wanted. */
function metBy(match: RouteMatch): Set<string> {
  const isPresent = (wanted: unknown) => (typeof wanted === 'string' ? true : Reflect.has(Object(wanted), 'regex'))
  const present = valueKinds.flatMap((kind) =>
    Object.entries(match[kind] ?? {}).flatMap(([name, wanted]) =>
      isPresent(wanted)
        ? [JSON.stringify([kind, kind === 'headers' ? name.toLowerCase() : name, { present: true }])]
        : []
    )
  )
  return new Set([...keysOf(match), ...present])
}
