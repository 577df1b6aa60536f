/** Checks `services` and the registries in `discovery`. */
import type { Steps } from '../plugins/time-slices.ts'
import { checkPem } from './checked.ts'
import type { Checked } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import type { Written } from './schema.ts'

export function* checkServices(checked: Checked): Steps<void> {
  checkConsul(checked)
  if (!checked.report.usable('/services')) return
  for (const name of Object.keys(checked.data.services)) {
    yield
    checkService(name, checked)
  }
}

function checkConsul(checked: Checked): void {
  const { consul } = checked.data.discovery ?? {}
  if (!checked.report.usable('/discovery/consul/tls')) return
  for (const key of ['ca', 'cert', 'key'] as const) {
    checkPem('/discovery/consul/tls', key, consul?.tls?.[key], checked)
  }
}

function checkService(name: string, checked: Checked): void {
  const { data, report } = checked
  const at = pointer('/services', name)
  const service = data.services[name]
  if (service === undefined || !report.usable(at)) return
  const sources = (['consul', 'instances', 'dns'] as const).filter((source) => service[source] !== undefined)
  const [first, second] = sources
  if (second !== undefined) {
    report.fault(
      pointer(at, second),
      `a service has one source of instances, but this one has ${sources.join(' and ')}`,
      'key'
    )
  } else if (service.sidecar !== undefined && (service.mesh?.mode ?? data.mesh?.mode) === 'sidecar') {
    // The sidecar finds the instances.
  } else if ((first === undefined || first === 'consul') && !report.unknownKeyIn(at) && report.usable('/discovery')) {
    if (data.discovery?.consul === undefined && report.usable('/discovery/consul')) {
      if (first === 'consul') report.fault(`${at}/consul`, 'needs discovery.consul, which is not set')
      else
        report.fault(at, 'has no source of instances; set instances or dns, or discovery.consul to find it in Consul')
    }
  }
  if (report.usable(`${at}/instances`)) {
    service.instances?.forEach((instance, index) => {
      const place = pointer(at, 'instances', index)
      if (typeof instance === 'string') checkInstance(place, instance, report)
      else checkInstance(`${place}/url`, instance?.url, report)
    })
  }
  const { dns } = service
  if (dns !== undefined && report.usable(`${at}/dns`) && !report.unknownKeyIn(`${at}/dns`)) {
    const known = report.usable(`${at}/dns/port`) && report.usable(`${at}/dns/srv`)
    if (known && dns.port === undefined && !dns.srv) report.fault(`${at}/dns`, 'needs a port, or srv: true')
  }
  checkMesh(at, service, checked)
}

function checkMesh(at: string, service: Written['services'][string], checked: Checked): void {
  const { data, report } = checked
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
  for (const source of ['instances', 'dns'] as const) {
    if (mode !== 'connect' || service[source] === undefined) continue
    report.fault(`${at}/${source}`, 'mode: connect finds instances in Consul; this service needs mode: direct', 'key')
  }
}

function checkInstance(at: string, text: string | undefined, report: Report): void {
  if (text === undefined || !report.usable(at)) return
  const url = new URL(text)
  const extra = [
    ...(url.username !== '' || url.password !== '' ? ['credentials'] : []),
    ...(url.pathname !== '/' ? ['a path'] : []),
    ...(url.search !== '' || text.includes('?') ? ['a query'] : []),
    ...(text.includes('#') ? ['a fragment'] : [])
  ]
  if (extra.length === 0) return
  const advice = extra.includes('a path') ? '; to add a path prefix, set path.rewrite of the route' : ''
  report.fault(at, `an instance is scheme, host and port; this one has ${extra.join(' and ')}${advice}`)
}
