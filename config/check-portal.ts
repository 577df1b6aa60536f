/** Checks routes that show the OpenAPI documents of services. */
import { checkFile } from './checked.ts'
import type { Checked } from './concern.ts'
import { pointer } from './faults.ts'
import { didYouMean } from './nearest.ts'
import { pathsOf } from './path-pattern.ts'
import type { PortalConfig } from './schema/portal.ts'
import type { Written } from './schema.ts'

type Route = Written['routes'][number]

export function checkPortal(at: string, route: Route, { services }: PortalConfig, checked: Checked): void {
  const { report, data } = checked
  for (const key of ['strip', 'rewrite'] as const) {
    if (route.path?.[key] === undefined || !report.usable(`${at}/path/${key}`)) continue
    report.fault(`${at}/path/${key}`, 'no effect with portal: the path goes to no service', 'key')
  }
  if (report.sound(`${at}/match/path`)) {
    const paths = pathsOf(route.match.path)
    const [first] = paths
    if (paths.length > 1 || typeof first !== 'string' || /[:*]/.test(first)) {
      report.fault(`${at}/match/path`, 'a portal needs one plain prefix, such as /docs: its documents are below it')
    }
  }
  for (const [name, source] of Object.entries(services)) {
    const place = pointer(at, 'portal', 'services', name)
    if ('file' in source) checkFile(`${place}/file`, source.file, checked)
    if (!report.usable('/services')) continue
    const known = Object.keys(data.services)
    if (!known.includes(name)) report.fault(place, `unknown service "${name}"${didYouMean(name, known)}`, 'key')
    else if (report.sound('/routes') && !data.routes.some((each) => leadsTo(each, name))) {
      report.warn(place, `no effect: no route leads to the service "${name}", so none of its operations is shown`)
    }
  }
}

const leadsTo = ({ service, split }: Route, name: string): boolean =>
  service === name || split?.some((share) => share.service === name) === true

/** Returns the options with absolute paths of files. */
export function completePortal(portal: PortalConfig, absolute: (path: string) => string): PortalConfig {
  const services = Object.entries(portal.services).map(([name, source]) => [
    name,
    'file' in source ? { file: absolute(source.file) } : source
  ])
  return { ...portal, services: Object.fromEntries(services) as PortalConfig['services'] }
}
