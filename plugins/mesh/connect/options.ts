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
      'Idle timeout of a connection, unless the service sends one (`Keep-Alive: timeout`); 0: connections are not reused.',
      { default: '4s' }
    ),
    maxAge: Type.Optional(
      Duration('Age (less up to a tenth, at random) after which a connection takes no more requests. Unset: no limit.')
    ),
    maxRequests: Type.Optional(Count('Most requests on one connection. Unset: no limit.'))
  },
  { ...strict, description: 'Connections to the instances.' }
)

const UpstreamTls = Type.Object(
  {
    ca: Type.Optional(
      Type.String({ description: "PEM file of the trusted certificate authorities. Default: Node's." })
    ),
    cert: Type.Optional(Type.String({ description: 'PEM file of the client certificate.' })),
    key: Type.Optional(Type.String({ description: 'PEM file of the key of the client certificate.' })),
    serverName: Type.Optional(
      Type.String({
        description: "Server name (SNI), which the certificate must have. Default: the instance's host name."
      })
    ),
    san: Type.Optional(
      Type.Array(Text, {
        minItems: 1,
        description: "One of these URIs or DNS names must be in the instance's certificate, instead of its host name."
      })
    ),
    minVersion: Names(['TLSv1.2', 'TLSv1.3'], { default: 'TLSv1.2', description: 'Lowest TLS version.' })
  },
  strict
)

export type UpstreamTlsOptions = Static<typeof UpstreamTls>

export const Identity = Type.Object(
  { service: Type.String({ description: 'Consul service as which the gateway calls others.' }) },
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

/** Keys by which other gateways switch off the verification of certificates. */
const unverified =
  'insecureSkipVerify|rejectUnauthorized|tlsVerify|sslVerify|strictSSL|proxySslVerify|verifyTls|skipVerify|useInsecureTrustManager|allowInsecureConnections|insecureConnections|trustChainVerification'

const verified =
  'certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE'

export const connectKeys: readonly Key[] = [
  {
    name: 'connectTimeout',
    options: Duration('Longest time to establish a connection, with its TLS handshake.'),
    levels: gatewayAndService,
    default: '2s'
  },
  {
    name: 'maxHeaderSize',
    options: Size(
      'Largest header section, and largest trailer section, of a response. A larger one fails the call with a 502.'
    ),
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
    aliases: { [unverified]: `${verified} under mesh.tls` },
    innerAliases: { [`${unverified}|verify|insecure`]: verified, 'sni|servername|hostname': 'write serverName' },
    options: orOff(UpstreamTls, { description: 'TLS toward https instances.' }),
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
        'direct (default): to the instances; sidecar: to the local listener in `services.NAME.sidecar`, or to that of `sidecar.gateway`; connect: to the instances by Consul Connect, with mTLS.'
    }),
    levels: gatewayAndService,
    check: checkMode,
    checkAll: checkListeners
  },
  { name: 'identity', options: Identity, levels: gatewayOnly },
  {
    name: 'intentions',
    options: orOff(Intentions, { description: "Refuses calls that Consul's intentions deny; on in `mode: connect`." }),
    levels: gatewayAndService,
    check(_options, at, checked) {
      if (checked.report.sound(at)) checkHasConsul(at, checked)
    }
  }
]

function checkTls(tls: UpstreamTlsOptions, at: string, checked: Checked): void {
  if (!checked.report.sound(at)) return
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    checked.report.fault(at, 'a client certificate needs both cert and key')
  }
  for (const key of ['ca', 'cert', 'key'] as const) checkPem(at, key, tls[key], checked)
}

function checkMode(mode: string, at: string, checked: Checked, { service }: Place): void {
  const { data, report } = checked
  if (mode === 'sidecar' && service !== null && report.usable(`/services/${service}`)) {
    if (data.services[service]?.sidecar !== undefined) return
    report.fault(at, `mode sidecar needs services.${service}.sidecar, the URL of its local listener`)
  }
  if (mode === 'connect') checkHasConsul(at, checked)
}

/** Checks that the listeners for callers in the mesh can get a certificate. */
function checkListeners({ data, report }: Checked): void {
  if (!report.usable('/discovery') || data.discovery.consul !== undefined) return
  for (const { at, connect } of data.listeners) {
    if (connect !== undefined && report.sound(`${at}/connect`)) {
      report.fault(`${at}/connect`, 'needs discovery.consul', 'key')
    }
  }
}

/** Checks the keys that Consul Connect and intentions depend on. */
function checkHasConsul(at: string, { data, report }: Checked): void {
  if (!report.usable('/discovery') || !report.usable('/mesh')) return
  if (data.discovery.consul === undefined) report.fault(at, 'needs discovery.consul')
  if (data.mesh.identity === undefined) {
    report.fault(at, 'needs mesh.identity.service, the Consul service as which the gateway calls others')
  }
}
