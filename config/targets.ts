/**
 * The services that a route calls: one, those of its split, or those of the calls of which its response is made. A completed
 * route has them in its field `targets`; these functions read them elsewhere, for all others.
 */
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import type { MeshPolicy, RouteConfig, WrittenRoute } from './schema.ts'

/** A mapping of a route that names services and has settings for calls to them: the route itself, or one of its calls. */
interface WrittenTarget {
  /** Pointer to the mapping. A call inherits the settings of the route. */
  readonly at: string
  readonly services: readonly string[]
  readonly mesh: Partial<MeshPolicy> | undefined
}

/** Returns the mappings of a route as the file has them, the route first, as far as their values can be read. */
export function writtenTargets(at: string, route: WrittenRoute, report: Report): WrittenTarget[] {
  const { service, split, compose, mesh } = route
  const isSound = report.sound(`${at}/service`) && report.sound(`${at}/split`)
  const written = service === undefined && isSound ? (split ?? []).map((share) => share.service) : []
  const own = { at, services: service !== undefined && isSound ? [service] : written, mesh }
  if (!report.usable(`${at}/compose`) || !report.usable(`${at}/compose/calls`)) return [own]
  const calls = Object.entries(compose?.calls ?? {}).flatMap(([name, call]) => {
    const place = pointer(at, 'compose', 'calls', name)
    if (!report.usable(place)) return []
    return [{ at: place, services: report.sound(`${place}/service`) ? [call.service] : [], mesh: call.mesh }]
  })
  return [own, ...calls]
}

/** Returns the calls of which a route makes its response, as operators see them; null for other routes. */
export function callsOf({ targets }: Pick<RouteConfig, 'targets'>) {
  const calls = targets.flatMap(({ service, call }) => {
    if (call === null) return []
    const { name, method, path, after, required } = call
    return [{ call: name, method, service, path, after, required }]
  })
  return calls.length === 0 ? null : calls
}

/** Returns whether the response of a route, as written or completed, is made of several calls. */
export const isComposed = (route: object): boolean => Reflect.get(route, 'compose') !== undefined
