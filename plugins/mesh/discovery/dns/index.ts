/** Source of instances from DNS: `services.*.dns`. */
import type { Static } from 'typebox'
import { Duration, DurationOrZero, Port, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { defineSource } from '../contract.ts'
import type { DnsOptions } from './resolve.ts'
import { DnsSource } from './source.ts'

const Dns = Type.Object(
  {
    host: Type.String({
      minLength: 1,
      description: 'Name with A or AAAA records; with `srv: true`, with SRV records.'
    }),
    port: Type.Optional(Port('Port of the instances; SRV records have their own.', 1)),
    srv: Type.Boolean({ default: false }),
    tls: Type.Boolean({ default: false, description: 'true: calls to the instances use https.' }),
    server: Type.Optional(
      Type.String({
        format: 'authority',
        expected: 'a host and port such as 10.0.0.2:8600',
        description: 'ip:port of the DNS server. Default: the one of the operating system.'
      })
    ),
    minTtl: DurationOrZero('Shortest time between two queries, also for records with a shorter TTL.', {
      default: '1s'
    }),
    maxTtl: Duration('Longest time until the next query, also for records with a longer TTL.', { default: '5m' })
  },
  strict
)

declare module '../../../../config/schema.ts' {
  interface ServiceSources {
    dns?: Static<typeof Dns>
  }
}

export default defineSource({
  name: 'dns',
  service: Dns,
  checkService(dns, at, { report }) {
    const known = report.usable(`${at}/port`) && report.usable(`${at}/srv`)
    if (!known || report.unknownKeyIn(at)) return
    const { port, srv } = dns as DnsOptions
    if (port === undefined && !srv) report.fault(at, 'needs a port, or srv: true')
  },
  backends: (dns) => [`dns ${(dns as DnsOptions).host.toLowerCase()} ${(dns as DnsOptions).port ?? 'srv'}`],
  create: (_options, { deps, counters }) => ({
    source: ({ name }, dns) => new DnsSource(name, dns!, deps, counters),
    query: (_service, dns) => dns!
  })
})
