/** Checks routes: their match, their service, their path, and conflicts between routes. */
import type { Steps } from '../plugins/time-slices.ts'
import { checkConditions } from './check-conditions.ts'
import { checkDirect } from './check-direct.ts'
import { checkHttpProxy } from './check-http-proxy.ts'
import { checkPaths } from './check-paths.ts'
import { checkReadings } from './check-readings.ts'
import { checkCompose, checkComposedRoute } from './compose/check.ts'
import type { Checked } from './concern.ts'
import { directKindOf } from './direct-routes.ts'
import { pointer } from './faults.ts'
import { areSound } from './listeners.ts'
import { didYouMean } from './nearest.ts'
import { pathPatterns } from './path-pattern.ts'
import { Protections } from './protection.ts'
import { methodsOf } from './route-table.ts'
import { RouteTables } from './route-tables.ts'
import type { Written } from './schema.ts'
import { writtenTargets } from './targets.ts'

type Route = Written['routes'][number]

export function* checkRoutes(checked: Checked): Steps<void> {
  const { data, report } = checked
  const names = new Map<string, string>()
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.usable(at)) continue
    if (report.usable(`${at}/name`)) {
      const before = names.get(route.name)
      if (before === undefined) names.set(route.name, at)
      else {
        const where = report.where(`${before}/name`)
        report.fault(`${at}/name`, `duplicate route name "${route.name}"; it is also ${where}`)
      }
    }
    checkGroup(at, route, checked)
    checkTarget(at, route, checked)
    checkPaths(at, route, checked)
    checkConditions(at, route, checked)
    checkListeners(at, route, checked)
    checkHttpProxy(at, route, checked)
    checkCompose(at, route, checked)
    checkSubsets(at, route, checked)
  }
  const used = new Set(data.routes.map((route) => route?.group))
  for (const name of Object.keys(report.usable('/groups') ? (data.groups ?? {}) : {})) {
    if (!used.has(name)) report.warn(pointer('/groups', name), 'no effect: no route has this group', 'key')
  }
  yield* checkReadings(checked, yield* checkConflicts(checked))
}

function checkGroup(at: string, { group }: Route, { data, report }: Checked): void {
  if (group === undefined || !report.usable(`${at}/group`) || !report.usable('/groups')) return
  const names = Object.keys(data.groups ?? {})
  if (!names.includes(group)) report.fault(`${at}/group`, `unknown group "${group}"${didYouMean(group, names)}`)
}

function checkTarget(at: string, route: Route, checked: Checked): void {
  const { report } = checked
  const { service, split, compose } = route
  const kind = directKindOf(route)
  if (kind !== null) {
    if (compose !== undefined) report.fault(`${at}/compose`, `a route has either ${kind} or compose`, 'key')
    checkDirect(at, route, kind, checked)
    return
  }
  if (compose !== undefined) {
    checkComposedRoute(at, route, checked)
    return
  }
  if (service !== undefined && split !== undefined) {
    report.fault(`${at}/split`, 'a route has either a service or a split, not both', 'key')
  } else if (service === undefined && split === undefined && !report.unknownKeyIn(at)) {
    report.fault(at, 'missing key "service", "split", "compose", "response", "redirect", "files" or "portal"')
  }
  checkKnown(`${at}/service`, service, checked)
  if (split === undefined || !report.usable(`${at}/split`)) return
  split.forEach((share, index) => void checkKnown(pointer(at, 'split', index, 'service'), share?.service, checked))
  const weighted = split.every((_, index) => report.usable(pointer(at, 'split', index, 'weight')))
  if (weighted && split.every((share) => share?.weight === 0)) {
    report.fault(`${at}/split`, 'all weights are 0, so no service gets any traffic')
  }
}

/** Checks that the subsets in a route exist in its service, or in the services of its split. */
function checkSubsets(at: string, route: Route, checked: Checked): void {
  const { report } = checked
  const { split, mesh, stickOn } = route
  if (stickOn !== undefined && split === undefined && report.usable(`${at}/stickOn`)) {
    report.fault(`${at}/stickOn`, 'no effect without "split"', 'key')
  }
  if (!report.sound(`${at}/split`) || !report.usable(`${at}/service`)) return
  split?.forEach((share, index) => {
    checkSubset(pointer(at, 'split', index, 'subset'), share.service, share.subset, checked)
    if (share.subset === undefined) checkSubset(`${at}/mesh/subset`, share.service, mesh?.subset, checked)
  })
  if (split !== undefined) return
  for (const { at: place, services, mesh: own } of writtenTargets(at, route, report)) {
    const holder = own?.subset === undefined ? at : place
    for (const service of services) {
      checkSubset(`${holder}/mesh/subset`, service, own?.subset ?? mesh?.subset, checked)
    }
  }
}

function checkSubset(at: string, service: string | undefined, subset: string | undefined, checked: Checked): void {
  const { data, report } = checked
  if (service === undefined || subset === undefined || !report.usable(at) || !report.usable('/services')) return
  const known = Object.hasOwn(data.services, service) ? data.services[service] : undefined
  if (known === undefined || Object.hasOwn(known.subsets ?? {}, subset)) return
  const advice = didYouMean(subset, Object.keys(known.subsets ?? {}))
  report.fault(at, `the service "${service}" has no subset "${subset}"${advice}`)
}

function checkKnown(at: string, name: string | undefined, { data, report }: Checked): void {
  if (name === undefined || !report.usable(at) || !report.usable('/services')) return
  if (Object.hasOwn(data.services, name)) return
  report.fault(at, `unknown service "${name}"${didYouMean(name, Object.keys(data.services))}`)
}

function checkListeners(at: string, { match }: Route, { data, report }: Checked): void {
  const place = `${at}/match/listeners`
  if (!report.usable(`${at}/match`) || !report.sound(place) || !report.sound('/listen')) return
  const names = data.listeners.map(({ name }) => name)
  match.listeners?.forEach((name, index) => {
    if (names.includes(name)) return
    report.fault(pointer(place, index), `no listener is named "${name}"${didYouMean(name, names)}`)
  })
}

/** Reports routes that match the same requests. Returns the route tables. */
function* checkConflicts(checked: Checked): Steps<RouteTables<number>> {
  const { data, keys, report } = checked
  const guarded = { case: 'guard', trailingSlash: 'guard', trailingDot: 'guard' } as const
  const isSound = (index: number) => report.sound(`${pointer('/routes', index)}/match`)
  const matches = data.routes.flatMap((route, index) => (isSound(index) ? (route?.match ?? []) : []))
  const tables = new RouteTables<number>(areSound(checked, 'paths') ? data.listen.paths : guarded, matches)
  const protections = new Protections(keys)
  const edgeOf = ({ edge, config, plugins }: Route) => ({ edge: { ...data.edge, ...edge }, config, plugins })
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index)
    if (!report.usable(at) || !report.sound(`${at}/match`) || route.match === undefined) continue
    const { match, priority } = route
    const protection = protections.of(edgeOf(route))
    const conflicts = pathPatterns(match.path).flatMap((pattern) => {
      const other = tables.add({ match, pattern, priority, answersPreflights: false, protection, value: index })
      return other === undefined ? [] : { other, text: pattern.text }
    })
    const [conflict] = conflicts
    const found = conflict && data.routes[conflict.other]
    if (found === undefined) continue
    if (conflict!.other === index) {
      report.fault(`${at}/match/path`, `two of these paths match the same requests: ${conflict!.text}`)
      continue
    }
    const where = report.where(pointer('/routes', conflict!.other))
    const taken = new Set(methodsOf(found.match))
    const methods = methodsOf(match).filter((method) => taken.has(method))
    const what = `routes "${found.name}" (${where}) and "${route.name}" match the same requests`
    report.fault(`${at}/match`, `${what}: ${methods.join(', ')} ${conflict!.text}`)
  }
  return tables
}
