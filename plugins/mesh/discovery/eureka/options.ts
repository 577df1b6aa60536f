/** Options of Eureka: its servers, and the choice of a service's instances. */
import type { Static } from 'typebox'
import { Duration, DurationOrZero, Names, Size, strict, Text, Url } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const Options = Type.Object(
  {
    urls: Type.Array(Url('http', 'URL of a server with its context path: http://eureka-1:8761/eureka.'), {
      minItems: 1,
      maxItems: 20,
      description: 'Servers. If one fails, the next is used; user and password may be in the URL.'
    }),
    username: Type.Optional(Type.String({ description: 'User for servers whose URL has none.' })),
    password: Type.Optional(Type.String({ description: 'Password of `username`.' })),
    fetch: Names(['registry', 'app'], {
      default: 'registry',
      description:
        'registry: one query for the whole registry, and then for its changes, for all services. app: a query for each service; better if the registry is much larger than what the gateway needs.'
    }),
    deltas: Type.Boolean({
      default: true,
      description: 'false: each query is for the whole registry, instead of for the changes since the last one.'
    }),
    interval: Duration('Interval of the queries.', { default: '30s' }),
    timeout: Duration('Longest time for one response.', { default: '10s' }),
    maxSize: Size('A larger response is refused.', { default: '32mb' }),
    emptyGrace: DurationOrZero(
      'While instances are in use, an empty list must last this long: a restarted server knows its services only once they have registered again.',
      { default: '1m' }
    ),
    address: Names(['hostname', 'ip'], {
      default: 'hostname',
      description: 'Address of an instance that is used: `hostName` or `ipAddr`.'
    }),
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(
            Type.String({ description: 'PEM file with the authorities that sign the certificates of the servers.' })
          ),
          cert: Type.Optional(Type.String({ description: 'PEM file with the client certificate of the gateway.' })),
          key: Type.Optional(Type.String({ description: 'PEM file with the private key of `cert`.' }))
        },
        strict
      )
    )
  },
  strict
)

export const Service = Type.Object(
  {
    app: Type.Optional(
      Type.String({
        ...Text,
        description: 'Name of the application, whatever its case. Default: the name of the service here.'
      })
    ),
    vip: Type.Optional(
      Type.String({ ...Text, description: 'Virtual address (VIP) of the instances; instead of `app`.' })
    ),
    secure: Type.Boolean({
      default: false,
      description: 'true: calls use https and the secure port, where it is enabled. Else only if no other port is.'
    })
  },
  strict
)

export type EurekaOptions = Static<typeof Options>
export type EurekaService = Static<typeof Service>

declare module '../../../../config/schema.ts' {
  interface DiscoveryOptions {
    eureka?: EurekaOptions
  }
  interface ServiceSources {
    eureka?: EurekaService
  }
}
