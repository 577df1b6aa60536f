/** Checks `services` and the registries in `discovery`. */
import type { Steps } from '../plugins/time-slices.ts'
import type { Checked, SourceKey } from './concern.ts'
import { pointer } from './faults.ts'
import { checkBasePath, checkOrigin } from './instances.ts'
import { didYouMean } from './nearest.ts'
import type { ServiceOptions } from './schema.ts'
import { defaultSources, sourcesOf } from './sources.ts'

export function* checkServices(checked: Checked): Steps<void> {
  checkDiscovery(checked)
  if (!checked.report.usable('/services')) return
  for (const name of Object.keys(checked.data.services)) {
    yield
    checkService(name, checked)
  }
}

function checkDiscovery(checked: Checked): void {
  const { data, keys, report } = checked
  if (!report.usable('/discovery')) return
  for (const { name, check } of keys.sources) {
    const options: unknown = Reflect.get(data.discovery, name)
    const at = pointer('/discovery', name)
    if (options !== undefined && report.usable(at)) check?.(options, at, checked)
  }
  const wanted = data.discovery.default
  const names = keys.sources.flatMap(({ name, findsByName }) => (findsByName ? [name] : []))
  if (wanted === undefined || keys.lackConcerns || !report.usable('/discovery/default')) return
  if (!names.includes(wanted)) {
    report.fault(
      '/discovery/default',
      `expected one of ${names.join(', ')}, found "${wanted}"${didYouMean(wanted, names)}`
    )
  } else if (!isConfigured(wanted, checked)) {
    report.fault('/discovery/default', `needs discovery.${wanted}, which is not set`)
  }
}

/** Returns whether the options of a source are set, also if they have a fault. */
const isConfigured = (source: string, { data, report }: Checked) =>
  Reflect.get(data.discovery, source) !== undefined || !report.usable(pointer('/discovery', source))

function checkService(name: string, checked: Checked): void {
  const { data, keys, report } = checked
  const at = pointer('/services', name)
  const service = data.services[name]
  if (service === undefined || !report.usable(at)) return
  const named = sourcesOf(service, keys.sources)
  const [first, second] = named
  if (second !== undefined) {
    const names = named.map((source) => source.name).join(' and ')
    report.fault(pointer(at, second.name), `a service has one source of instances, but this one has ${names}`, 'key')
  } else if (keys.withoutMesh) {
    // Its address is checked with `forward`.
  } else if (service.sidecar !== undefined && (service.mesh?.mode ?? data.mesh?.mode) === 'sidecar') {
    // The sidecar finds the instances.
  } else if (!report.unknownKeyIn(at) && report.usable('/discovery')) {
    if (first === undefined) checkDefault(name, checked)
    else if (first.needsOptions && !isConfigured(first.name, checked)) {
      report.fault(pointer(at, first.name), `needs discovery.${first.name}, which is not set`)
    }
  }
  for (const { name, checkService } of named) {
    const place = pointer(at, name)
    if (report.usable(place)) checkService?.(Reflect.get(service, name), place, checked)
  }
  checkOrigin(`${at}/sidecar`, service.sidecar, report, { what: 'the address of a sidecar' })
  if (report.usable(`${at}/instances`)) checkBasePath(`${at}/basePath`, service, report)
  checkMode(at, service, named, checked)
}

/** Joins names: `a, b or c`. */
const either = (names: readonly string[]) => names.join(', ').replace(/, ([^,]*)$/, ' or $1')

/** Checks that one registry finds a service which names no source. */
function checkDefault(service: string, checked: Checked): void {
  const at = pointer('/services', service)
  const { data, keys, report } = checked
  if (keys.lackConcerns || !report.usable('/discovery/default')) return
  const found = keys.sources.filter(({ name, findsByName }) => {
    if (findsByName === undefined || !isConfigured(name, checked)) return false
    return !report.usable(pointer('/discovery', name)) || findsByName(Reflect.get(data.discovery, name))
  })
  if (found.length === 0) {
    const own = keys.sources.flatMap(({ name, needsOptions }) => (needsOptions ? [] : [name]))
    const registries = keys.sources.flatMap(({ name, findsByName }) => (findsByName ? [`discovery.${name}`] : []))
    if (data.services[service]?.sidecar !== undefined) {
      const cure = 'mesh.mode: sidecar, or "mesh: false" for an edge without the mesh, whose calls go to the sidecar'
      report.fault(`${at}/sidecar`, `no effect without ${cure}`, 'key')
      return
    }
    report.fault(
      at,
      `has no source of instances; set ${either(own)}, or a registry that finds it by its name: ${either(registries)}`
    )
  } else if (found.length > 1 && data.discovery.default === undefined) {
    const names = found.map(({ name }) => name)
    report.fault(
      at,
      `has no source of instances, and ${names.length} registries could find it; set ${names.map((each) => `${each}: {}`).join(' or ')}, or discovery.default for all such services`
    )
  }
}

function checkMode(at: string, service: ServiceOptions, named: readonly SourceKey[], checked: Checked): void {
  const { data, keys, report } = checked
  if (!report.sound('/mesh/mode') || !report.sound(`${at}/mesh`)) return
  const mode = service.mesh?.mode ?? data.mesh.mode
  const inherited = service.mesh?.mode === undefined
  // The mode is inherited, but the key is missing in the service, so the fault is reported there.
  if (mode === 'sidecar' && inherited && service.sidecar === undefined && report.usable(`${at}/sidecar`)) {
    report.fault(
      at,
      'missing key "sidecar": with mesh.mode: sidecar it is the URL of the local listener for this service'
    )
  }
  if (mode !== 'connect') return
  const fault = 'mode: connect finds instances in Consul; this service needs mode: direct'
  for (const { name, findsConnect } of named) if (!findsConnect) report.fault(pointer(at, name), fault, 'key')
  if (named.length > 0 || !report.usable('/discovery')) return
  const [source] = defaultSources(data.discovery, keys.sources)
  if (source === undefined || source.findsConnect) return
  const others = keys.sources.flatMap(({ name, findsConnect }) => (findsConnect ? [`${name}: {}`] : []))
  report.fault(at, `${fault}, or ${others.join(' or ')}`)
}
