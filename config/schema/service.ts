/** Schema of `services`: the sources of their instances. */

import { Duration, DurationOrZero, Either, Name, Port, strict, Text, Url } from './kit.ts'
import Type from './type.ts'

/** A selection of instances by tag and meta, which a route can choose. */
export const Subset = Type.Object(
  {
    tags: Type.Optional(Type.Array(Text, { description: 'Tags that an instance must have, all of them.' })),
    meta: Type.Optional(
      Type.Record(Type.String(), Type.String(), { description: 'Metadata that an instance must have, all of it.' })
    )
  },
  strict
)

const SidecarUrl = Url('http', 'URL of the local sidecar listener for the service; used with `mode: sidecar`.')

const InstanceUrl = Url('http', 'Origin of an instance: scheme, host and port.')

export const Service = Type.Object(
  {
    consul: Type.Optional(
      Type.Object(
        {
          service: Type.Optional(
            Type.String({ minLength: 1, description: 'Name of the service in Consul. Default: its name here.' })
          ),
          tags: Type.Optional(
            Type.Array(Type.String(), { description: 'Tags that an instance must have, all of them.' })
          ),
          datacenter: Type.Optional(Type.String({ description: 'Default: `discovery.consul.datacenter`.' })),
          failover: Type.Optional(
            Type.Array(Type.String(), {
              minItems: 1,
              description: 'Datacenters whose instances are used, in this order, while `datacenter` has none.'
            })
          ),
          passingOnly: Type.Boolean({
            default: true,
            description: 'true: only instances whose checks pass are used. false: instances in warning state, too.'
          })
        },
        strict
      )
    ),
    instances: Type.Optional(
      Type.Array(
        Either(
          { type: 'string' },
          InstanceUrl,
          Type.Object({ url: InstanceUrl, weight: Type.Integer({ minimum: 0, maximum: 65535, default: 1 }) }, strict)
        ),
        { minItems: 1 }
      )
    ),
    dns: Type.Optional(
      Type.Object(
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
    ),
    sidecar: Type.Optional(SidecarUrl),
    subsets: Type.Optional(Type.Record(Name, Subset, strict))
  },
  strict
)
