/** Options of Consul: its agent, which Consul Connect uses, too, and the query of a service. */
import type { Static } from 'typebox'
import { Duration, strict, Url } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

export const ConsulAgent = Type.Object(
  {
    url: Url('http', 'URL of the HTTP API of a Consul agent.'),
    token: Type.Optional(
      Type.String({
        description:
          'ACL token. It needs `service:read` and `node:read`; with `balance.locality` also `agent:read`, unless `discovery.locality` is set.'
      })
    ),
    datacenter: Type.Optional(Type.String({ description: "Default: the agent's own." })),
    namespace: Type.Optional(Type.String({ description: 'Consul Enterprise namespace.' })),
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(
            Type.String({ description: 'PEM file with the authorities that sign the certificate of Consul.' })
          ),
          cert: Type.Optional(Type.String({ description: 'PEM file with the client certificate of the gateway.' })),
          key: Type.Optional(Type.String({ description: 'PEM file with the private key of `cert`.' })),
          serverName: Type.Optional(
            Type.String({ description: "Name in Consul's certificate. Default: the host of `url`." })
          )
        },
        strict
      )
    ),
    wait: Duration('Longest time for which Consul holds a blocking query.', { default: '1m' }),
    maxStale: Duration('Responses of a Consul server that lost its leader longer ago than this are ignored.', {
      default: '1m'
    })
  },
  strict
)

export const ConsulService = Type.Object(
  {
    service: Type.Optional(
      Type.String({ minLength: 1, description: 'Name of the service in Consul. Default: its name here.' })
    ),
    tags: Type.Optional(Type.Array(Type.String(), { description: 'Tags that an instance must have, all of them.' })),
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

export const ConsulStoredKey = Type.Object(
  {
    key: Type.String({
      pattern: '^[^/].*$',
      expected: 'a key without a leading slash',
      description: 'Name of the key.'
    }),
    datacenter: Type.Optional(Type.String({ description: 'Default: `discovery.consul.datacenter`.' }))
  },
  {
    ...strict,
    description:
      "Key of Consul's KV store with the list, as in a file; the token needs `key:read`. A change takes effect at once, without a reload. While Consul is unavailable or the value has a fault, the last good list stays in use."
  }
)

export type ConsulOptions = Static<typeof ConsulAgent>

declare module '../../../config/schema.ts' {
  interface DiscoveryOptions {
    consul?: ConsulOptions
  }
  interface ServiceSources {
    consul?: Static<typeof ConsulService>
  }
}
