/** Checks routes: their match, their service, their path, and conflicts between routes. */
import FindMyWay from 'find-my-way'
import type { Steps } from '../plugins/time-slices.ts'
import { checkHttpProxy } from './check-http-proxy.ts'
import { checkReadings } from './check-readings.ts'
import { checkCompose, checkComposedRoute } from './compose/check.ts'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { writtenHostKey } from './host-name.ts'
import { areSound } from './listeners.ts'
import { didYouMean } from './nearest.ts'
import { isPattern, pathPatterns } from './path-pattern.ts'
import { Protections } from './protection.ts'
import { costFault } from './regex-cost.ts'
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
    checkTarget(at, route, checked)
    checkPath(at, route, checked)
    checkListeners(at, route, checked)
    checkHttpProxy(at, route, checked)
    checkCompose(at, route, checked)
    checkSubsets(at, route, checked)
  }
  yield* checkReadings(checked, yield* checkConflicts(checked))
}

function checkTarget(at: string, route: Route, checked: Checked): void {
  const { report } = checked
  const { service, split, compose } = route
  if (compose !== undefined) {
    checkComposedRoute(at, route, checked)
    return
  }
  if (service !== undefined && split !== undefined) {
    report.fault(`${at}/split`, 'a route has either a service or a split, not both', 'key')
  } else if (service === undefined && split === undefined && !report.unknownKeyIn(at)) {
    report.fault(at, 'missing key "service", "split" or "compose"')
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

function pathOf({ match: { path } }: Route): { text: string; exact: boolean } {
  return typeof path === 'string' ? { text: path, exact: false } : { text: path.exact, exact: true }
}

function checkPath(at: string, route: Route, { report }: Checked): void {
  if (!report.usable(`${at}/match`) || !report.sound(`${at}/match/path`)) return
  const { text, exact } = pathOf(route)
  const place = exact ? `${at}/match/path/exact` : `${at}/match/path`
  const [ambiguous] = /\/\/|\/\.\.?(?=\/|$)|[?#%;\\]/.exec(text) ?? []
  const hint = parameterHint(text)
  if (ambiguous !== undefined) {
    const paths = 'paths are matched after decoding, without dot segments, empty segments, path parameters and queries'
    report.fault(place, `a match path must not contain "${ambiguous}": ${paths}`)
  } else if (hint !== undefined) report.fault(place, hint)
  if (exact && text.includes('*')) report.fault(place, 'an exact path cannot contain "*"')
  else if (!exact && isPattern(text)) checkPattern(place, text, report)
  if (report.usable(`${at}/match/hosts`))
    route.match.hosts?.forEach((host, index) => {
      const place = pointer(at, 'match', 'hosts', index)
      if (report.usable(place) && writtenHostKey(host) === null) report.fault(place, `"${host}" is not a host name`)
    })
  const { strip, rewrite } = route.path ?? {}
  const [unsent] = /\/\/|\/\.\.?(?=\/|$)|[?#;\\]|%(?![\da-f]{2})/i.exec(rewrite?.prefix ?? '') ?? []
  if (unsent !== undefined && report.sound(`${at}/path/rewrite`)) {
    report.fault(`${at}/path/rewrite/prefix`, `a prefix must not contain "${unsent}": it is a plain path`)
  }
  if (!report.sound(`${at}/path`) || (strip === undefined && rewrite === undefined)) return
  const key = `${at}/path/${strip === undefined ? 'rewrite' : 'strip'}`
  if (strip !== undefined && rewrite !== undefined) {
    report.fault(`${at}/path/rewrite`, 'a path is either stripped or rewritten, not both', 'key')
  } else if (!exact && isPattern(text)) {
    const plain =
      text.endsWith('/*') && !isPattern(text.slice(0, -2)) ? `; write match.path: ${text.slice(0, -2) || '/'}` : ''
    report.fault(key, `"${text}" is a pattern; only a plain prefix can be removed or replaced${plain}`, 'key')
  } else if (strip !== undefined) {
    const prefix = strip.replace(/\/+$/, '')
    if (text === prefix || text.startsWith(`${prefix}/`)) return
    report.fault(key, `"${strip}" is not a prefix of "${text}" that ends at a segment boundary`)
  }
}

/** Reports a pattern that the router rejects, or whose matching can take more than linear time. */
function checkPattern(place: string, text: string, report: Report): void {
  if (/\*./.test(text.replace(/\([^)]*\)/g, ''))) {
    const prefix = text.replace(/\/?\*.*$/, '') || '/'
    const meant = `"${prefix}" matches it and all paths below, "${prefix.replace(/\/$/, '')}/*" only those below`
    report.fault(place, `"*" is allowed only at the end of a path: ${meant}`)
    return
  }
  try {
    FindMyWay().on('GET', text, () => {})
    for (const { parts } of pathPatterns(text)) {
      for (const part of parts) {
        const fault = part.kind === 'regex' ? costFault(part.pieces) : null
        if (fault !== null) throw new Error(fault)
      }
    }
  } catch (error) {
    report.fault(place, `invalid pattern: ${(error as Error).message}`)
  }
}

/** Returns advice for a parameter in the syntax of other gateways, `{id}`; undefined if the path has none. */
function parameterHint(text: string): string | undefined {
  const [found, name] = /\{([\w-]*)[^{}/]*\}/.exec(text.replace(/\([^)]*\)/g, '')) ?? []
  return found === undefined
    ? undefined
    : `"${found}" would be matched literally; write a parameter as ":${name || 'id'}"`
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
    const { match } = route
    let other: number | undefined
    for (const pattern of pathPatterns(match.path)) {
      const conflict = tables.add({
        match,
        pattern,
        answersPreflights: false,
        protection: protections.of(edgeOf(route)),
        value: index
      })
      other ??= conflict
    }
    const found = other === undefined ? undefined : data.routes[other]
    if (found === undefined) continue
    const where = report.where(pointer('/routes', other ?? 0))
    const taken = new Set(methodsOf(found.match))
    const methods = methodsOf(match).filter((method) => taken.has(method))
    const what = `routes "${found.name}" (${where}) and "${route.name}" match the same requests`
    report.fault(`${at}/match`, `${what}: ${methods.join(', ')} ${pathOf(route).text}`)
  }
  return tables
}
