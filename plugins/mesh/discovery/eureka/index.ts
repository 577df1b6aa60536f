/** Source of instances from Eureka, the registry of Spring Cloud Netflix: `discovery.eureka`, `services.*.eureka`. */
import { checkPem, checkUserinfo } from '../../../../config/checked.ts'
import type { ServiceConfig } from '../../../../config/schema.ts'
import { defineSource } from '../contract.ts'
import { WatchedSource } from '../watched.ts'
import type { Wanted } from './applications.ts'
import { Applications } from './applications.ts'
import { EurekaClient } from './client.ts'
import type { EurekaOptions, EurekaService } from './options.ts'
import { Options, Service } from './options.ts'
import { EurekaRegistry } from './registry.ts'

const files = ['ca', 'cert', 'key'] as const

export default defineSource({
  name: 'eureka',
  options: Options,
  service: Service,
  needsOptions: true,
  findsByName: () => true,
  check(options, at, checked) {
    const { urls, username, password, tls } = options as EurekaOptions
    const { report } = checked
    if (report.usable(`${at}/urls`)) {
      for (const [index, url] of urls.entries()) checkUserinfo(`${at}/urls/${index}`, url, report)
    }
    if (report.sound(at) && password !== undefined && username === undefined)
      report.fault(`${at}/password`, 'needs a username')
    if (!report.usable(`${at}/tls`)) return
    for (const key of files) checkPem(`${at}/tls`, key, tls?.[key], checked)
  },
  checkService(service, at, { report }) {
    const { app, vip } = service as EurekaService
    if (app !== undefined && vip !== undefined) report.fault(`${at}/vip`, 'set either app or vip, not both', 'key')
  },
  // Spring's clients register an application under a virtual address of the same name.
  backends(service, name) {
    const { app, vip } = service as EurekaService
    return [`eureka ${(vip ?? app ?? name).toLowerCase()}`]
  },
  complete(options, absolute) {
    const { tls, ...rest } = options as EurekaOptions
    if (tls === undefined) return rest
    const paths = files.flatMap((key) => (tls[key] === undefined ? [] : [[key, absolute(tls[key])]]))
    return { ...rest, tls: Object.fromEntries(paths) }
  },
  completeService(service, name) {
    const { app, vip } = service as EurekaService
    return vip === undefined && app === undefined ? { ...(service as EurekaService), app: name } : service
  },
  create(options, context) {
    if (options === undefined) throw new Error('discovery.eureka is not configured')
    const { fetch, interval, timeout, emptyGrace, urls, address } = options
    const client = new EurekaClient(options)
    const registry = new EurekaRegistry(client, options, context.deps)
    const wantedOf = ({ name }: ServiceConfig, chosen: EurekaService | undefined): Wanted => {
      const { app, vip, secure = false } = chosen ?? {}
      return { ...(vip === undefined ? { app: app ?? name } : { vip }), secure, address }
    }
    return {
      source(service, chosen) {
        const wanted = wantedOf(service, chosen)
        const common = {
          kind: 'eureka',
          service: service.name,
          // All servers in turn, of which each may take the whole timeout.
          timeoutMs: urls.length * timeout + 5000,
          emptyGraceMs: emptyGrace
        }
        if (fetch === 'registry') {
          const watch = registry.follow.bind(registry, wanted)
          return new WatchedSource({ ...common, watch, everyMs: 0, label: null }, context)
        }
        return new WatchedSource(
          {
            ...common,
            everyMs: interval,
            label: 'Eureka',
            async watch({ publish, signal }) {
              const body = await client.application(wanted, signal)
              publish(new Applications(body).instancesOf(wanted))
            }
          },
          context
        )
      },
      query: (service, chosen) => ({ source: 'eureka', servers: client.shown, ...wantedOf(service, chosen) }),
      close: () => client.close()
    }
  }
})
