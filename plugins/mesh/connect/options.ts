/** Options of the connections to instances: pools, TLS, sidecars and Consul Connect. */
import type { Static } from 'typebox'
import { checkPem } from '../../../config/checked.ts'
import type { Checked, Key, Place } from '../../../config/concern.ts'
import { gatewayAndService, gatewayOnly } from '../../../config/concern.ts'
import { Count, Duration, DurationOrZero, Mode, Names, orOff, Size, strict, Text } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

export const Connections = Type.Object(
  {
    idle: DurationOrZero(
      'How long an idle connection waits for its next request where the service does not say so (`Keep-Alive: timeout`); 0: not at all.',
      { default: '4s' }
    ),
    maxAge: Type.Optional(
      Duration('A connection this old, or up to a tenth younger, takes no more requests. Unset: it may live for ever.')
    ),
    maxRequests: Type.Optional(Count('Most requests on one connection. Unset: any number.'))
  },
  { ...strict, description: 'Connections to the instances.' }
)

export const UpstreamTls = Type.Object(
  {
    ca: Type.Optional(Type.String({ description: "PEM file; default: Node's authorities." })),
    cert: Type.Optional(Type.String({ description: 'PEM file of the client certificate.' })),
    key: Type.Optional(Type.String({ description: 'PEM file of its key.' })),
    serverName: Type.Optional(Type.String({ description: "SNI; default: the instance's host name." })),
    san: Type.Optional(
      Type.Array(Text, {
        minItems: 1,
        description: "One of these URIs or DNS names must be in the instance's certificate, instead of its host name."
      })
    ),
    minVersion: Names(['TLSv1.2', 'TLSv1.3'], { default: 'TLSv1.2', description: 'Oldest version spoken.' })
  },
  strict
)

export type UpstreamTlsOptions = Static<typeof UpstreamTls>

export const Identity = Type.Object(
  { service: Type.String({ description: 'Consul service that the gateway speaks as.' }) },
  strict
)

const Intentions = Type.Object({ mode: Mode }, strict)

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    connections?: Static<typeof Connections>
    connectTimeout: number
    maxHeaderSize?: number
    mode?: 'direct' | 'sidecar' | 'connect'
    tls?: UpstreamTlsOptions | false
    identity?: Static<typeof Identity>
    intentions?: Static<typeof Intentions> | false
  }
}

export const connectKeys: readonly Key[] = [
  { name: 'connectTimeout', options: Duration('TCP and TLS.'), levels: gatewayAndService, default: '2s' },
  {
    name: 'maxHeaderSize',
    options: Size('Largest header section of a response, and largest trailer section; what is larger is a 502.'),
    levels: gatewayAndService,
    default: '64kb'
  },
  {
    name: 'connections',
    options: Connections,
    levels: gatewayAndService,
    innerAliases: { idleTimeout: 'write connections.idle', keepAlive: 'write connections.idle' }
  },
  {
    name: 'tls',
    options: orOff(UpstreamTls, { description: 'How https instances are spoken to.' }),
    levels: gatewayAndService,
    check: checkTls,
    complete(options: UpstreamTlsOptions, absolute) {
      const { ca, cert, key } = options
      return {
        ...options,
        ...(ca !== undefined && { ca: absolute(ca) }),
        ...(cert !== undefined && { cert: absolute(cert) }),
        ...(key !== undefined && { key: absolute(key) })
      }
    }
  },
  {
    name: 'mode',
    options: Names(['direct', 'sidecar', 'connect'], {
      description:
        'direct unless set; sidecar: through the local listener of `services.NAME.sidecar`; connect: Consul Connect, mTLS to the instances.'
    }),
    levels: gatewayAndService,
    check: checkMode
  },
  { name: 'identity', options: Identity, levels: gatewayOnly },
  {
    name: 'intentions',
    options: orOff(Intentions, { description: "Consul's intentions, asked before a call; on in `mode: connect`." }),
    levels: gatewayAndService,
    check(_options, at, checked) {
      if (checked.report.sound(at)) checkHasConsul(at, checked)
    }
  }
]

function checkTls(tls: UpstreamTlsOptions, at: string, checked: Checked): void {
  if (!checked.report.sound(at)) return
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    checked.report.fault(at, 'a client certificate needs cert and key')
  }
  for (const key of ['ca', 'cert', 'key'] as const) checkPem(at, key, tls[key], checked)
}

function checkMode(mode: string, at: string, checked: Checked, { service }: Place): void {
  const { data, report } = checked
  if (mode === 'sidecar' && service !== null && report.usable(`/services/${service}`)) {
    if (data.services[service]?.sidecar !== undefined) return
    report.fault(at, `services.${service}.sidecar must say which local listener leads to it`)
  }
  if (mode === 'connect') checkHasConsul(at, checked)
}

/** Checks what Consul Connect and intentions need. */
function checkHasConsul(at: string, { data, report }: Checked): void {
  if (!report.usable('/discovery') || !report.usable('/mesh')) return
  if (data.discovery.consul === undefined) report.fault(at, 'needs discovery.consul')
  if (data.mesh.identity === undefined) {
    report.fault(at, 'needs mesh.identity.service: the Consul service that the gateway speaks as')
  }
}
