/** Schema of `sidecar`: the listeners of a process that runs the mesh half for one service. */
import type { Static, TObject, TSchema } from 'typebox'
import { Admin, Listen } from './gateway.ts'
import { InboundConnect } from './inbound.ts'
import { Either, ListenHost, Name, Names, orOff, Port, strict, Url } from './kit.ts'
import { Tls } from './tls.ts'
import Type from './type.ts'

const { path, socketMode, http2, drain } = Listen.properties

const named = (what: string) =>
  Type.Optional({ ...Name, description: `Unique name of the listener, in metric labels and logs. Default: ${what}.` })

const Outbound = Type.Object(
  {
    name: named('`outbound-SERVICE`, or `outbound` for a listener without `service`'),
    host: ListenHost('127.0.0.1', 'Every process that can connect calls in the name of the local service.'),
    port: Type.Optional(Port('Port for calls of the local service; or set `path`.')),
    path: Type.Optional({ ...path, description: 'Path of a Unix socket, instead of `host` and `port`.' }),
    socketMode,
    service: Type.Optional(
      Type.String({
        description:
          'One of `services`, which gets all requests. Default: the service that `Host` names: `orders` or `orders.mesh`.'
      })
    )
  },
  strict
)

const Inbound = Type.Object(
  {
    name: named('`inbound`'),
    host: ListenHost('0.0.0.0'),
    port: Type.Optional(Port('Port for calls of other services; or set `path`.')),
    path: Type.Optional({ ...path, description: 'Path of a Unix socket, instead of `host` and `port`.' }),
    socketMode,
    tls: Type.Optional(Tls),
    connect: Type.Optional(InboundConnect),
    http2,
    url: Url('http', 'Origin of the local service: scheme, host and port.')
  },
  strict
)

/** Schema of `sidecar`, with keys of the sidecar's own edge, and `policy` for `inbound.mesh`. */
export function sidecarSection(own: Readonly<Record<string, TSchema>>, policy: TSchema) {
  const inbound = Type.Object(
    {
      ...Inbound.properties,
      mesh: Type.Optional({
        ...policy,
        description:
          'Policy for calls to the local service, such as `timeout` and `healthCheck`. The top-level `mesh` does not apply to it.'
      })
    },
    strict
  )
  return Type.Object(
    {
      outbound: Type.Array(Outbound, {
        default: [],
        maxItems: 100,
        description: 'Listeners for calls of the local service to other services.'
      }),
      inbound: Type.Optional(
        Either({ type: 'array' }, Type.Array(inbound, { minItems: 1, maxItems: 100 }), inbound, {
          description: 'Listeners for calls of other services to the local service.'
        })
      ),
      drain,
      ...own
    },
    { ...strict, description: 'Makes the process a sidecar: it runs the mesh half for one service, and no edge.' }
  )
}

/** Keys of `sidecar` in the file of a gateway. */
const ofGateway = {
  gateway: Type.Object(
    {
      host: ListenHost('127.0.0.1', 'Every process that can connect calls in the name of the gateway.'),
      port: Port("Port for the gateway's calls.", 1)
    },
    {
      ...strict,
      description:
        "Only in the file of a gateway, whose mesh half `jingwei sidecar` then runs: listener for the gateway's calls. With `mesh.mode: sidecar` the gateway calls services there."
    }
  ),
  mode: Names(['direct', 'connect'], {
    default: 'direct',
    description: 'With `gateway`: how the sidecar calls the services for which `mesh.mode` is sidecar.'
  }),
  admin: Type.Optional(
    orOff(Admin, { description: 'With `gateway`: admin port of the sidecar, as `admin`, which is the default.' })
  )
}

/** Schema of `sidecar` in the file of a gateway, whose mesh half it runs; with keys of the sidecar's own edge. */
export const gatewaySidecarSection = (own: Readonly<Record<string, TSchema>>) =>
  Type.Object({ ...ofGateway, drain, ...own }, strict)

/** Returns the schema of `sidecar` with the keys of both kinds of files, for editors and documentation. */
export const withGateway = ({ properties, ...more }: TObject): TObject => {
  const { gateway, mode, admin } = ofGateway
  return Type.Object({ ...properties, gateway: Type.Optional(gateway), mode: Type.Optional(mode), admin }, more)
}

export type OutboundOptions = Static<typeof Outbound>
export type InboundOptions = Static<typeof Inbound> & { mesh?: Readonly<Record<string, unknown>> }
export interface SidecarOptions {
  readonly outbound: readonly OutboundOptions[]
  readonly inbound?: InboundOptions | readonly InboundOptions[]
  readonly drain: Static<typeof drain>
  /** In the file of a gateway only, as the next two. */
  readonly gateway?: { readonly host: string; readonly port: number }
  readonly mode?: 'direct' | 'connect'
  readonly admin?: Static<typeof Admin> | false
}
