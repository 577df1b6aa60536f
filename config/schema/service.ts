/** `services`: where instances are found. */
import Type from 'typebox'
import { Duration, DurationOrZero, Either, Name, Port, strict, Text, Url } from './kit.ts'

/** Instances by tag and meta, for routes that want only these. */
export const Subset = Type.Object(
  {
    tags: Type.Optional(Type.Array(Text, { description: 'An instance must carry all of them.' })),
    meta: Type.Optional(Type.Record(Type.String(), Type.String(), { description: 'It must have all of these.' }))
  },
  strict
)

const SidecarUrl = Url('http', 'The local listener of a sidecar that leads to the service; `mode: sidecar`.')

const InstanceUrl = Url('http', 'An address of the service: scheme, host and port.')

export const Service = Type.Object(
  {
    consul: Type.Optional(
      Type.Object(
        {
          service: Type.Optional(Type.String({ minLength: 1, description: "Default: the service's own name." })),
          tags: Type.Optional(Type.Array(Type.String(), { description: 'An instance must carry all of them.' })),
          datacenter: Type.Optional(Type.String()),
          failover: Type.Optional(
            Type.Array(Type.String(), {
              minItems: 1,
              description: 'Datacenters whose instances serve, in this order, when none is left in the first.'
            })
          ),
          passingOnly: Type.Boolean({ default: true, description: 'false: instances in warning state serve too.' })
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
          host: Type.String({ minLength: 1, description: 'A/AAAA name; with `srv: true`, the SRV name.' }),
          port: Type.Optional(Port('For A/AAAA; an SRV record brings its own.', 1)),
          srv: Type.Boolean({ default: false }),
          tls: Type.Boolean({ default: false, description: 'Speak https to the instances.' }),
          server: Type.Optional(
            Type.String({
              format: 'authority',
              expected: 'a host and port such as 10.0.0.2:8600',
              description: 'ip:port of the DNS server; default: the system’s.'
            })
          ),
          minTtl: DurationOrZero('Never ask more often than this.', { default: '1s' }),
          maxTtl: Duration('Never keep an answer longer than this.', { default: '5m' })
        },
        strict
      )
    ),
    sidecar: Type.Optional(SidecarUrl),
    subsets: Type.Optional(Type.Record(Name, Subset, strict))
  },
  strict
)
