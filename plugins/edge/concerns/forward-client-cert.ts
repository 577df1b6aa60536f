/** Tells services the client's certificate, by the headers of RFC 9440. Copies that clients send are dropped on all routes. */
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { clientCert, clientCertChain } from '../../../config/header-names.ts'
import { orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { EdgePolicy } from '../../../config/schema.ts'
import { dropHeaders } from '../../for-plugins.ts'
import { addUpstreamHeader, decorateUpstreamHeaders } from '../bridge/upstream-headers.ts'
import { edgeConcern } from '../concern.ts'
import { chainField, leafField } from '../protocol/tls/client-cert-header.ts'
import type { ClientCertificate } from '../protocol/tls/client-certificate.ts'
import { canShowCertificates } from '../protocol/tls/client-rules.ts'

const Options = Type.Object(
  {
    chain: Type.Boolean({
      default: false,
      description:
        'Also send the issuers that the client has presented, as `Client-Cert-Chain`. There are none on connections that resume a TLS session.'
    })
  },
  {
    ...strict,
    description:
      'Send the verified client certificate to the service as `Client-Cert` (RFC 9440). Without a certificate, there is no header.'
  }
)

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    forwardClientCert?: Static<typeof Options> | false
  }
}

export default edgeConcern({
  name: 'forwardClientCert',
  options: orOff(Options),
  protects: false,
  checkAll: checkRoutes,
  async plugin(fastify) {
    decorateUpstreamHeaders(fastify)
    return ({ chain }, routeOptions) => {
      dropHeaders(routeOptions, [clientCert, clientCertChain])
      // A connection has one object for its certificate.
      const known = new WeakMap<ClientCertificate, { readonly leaf: string; readonly issuers: string }>()
      return {
        onRequest(request, _reply, done) {
          const { clientCertificate } = request
          if (clientCertificate === null || isForwarded(request)) return done()
          let fields = known.get(clientCertificate)
          if (fields === undefined) {
            fields = { leaf: leafField(clientCertificate), issuers: chain ? chainField(clientCertificate) : '' }
            known.set(clientCertificate, fields)
          }
          addUpstreamHeader(request, clientCert, fields.leaf)
          if (fields.issuers !== '') addUpstreamHeader(request, clientCertChain, fields.issuers)
          done()
        }
      }
    }
  }
})

/** Returns whether the header of a trusted proxy reaches the service anyway. */
const isForwarded = ({ server, raw }: FastifyRequest): boolean =>
  server.upstreamRequests.peers.trustedHeadersOf(raw)?.names.has(clientCert) === true

/** Warns of routes on which no listener can get a client certificate. */
function checkRoutes({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge') || !report.sound('/listen')) return
  const listeners = data.listeners.filter(({ enabled }) => enabled)
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || !report.sound(pointer('/routes', index, 'match'))) return
    const own: EdgePolicy = route.edge ?? {}
    const place = `${at}/forwardClientCert`
    if (!report.sound(place) || !own.forwardClientCert || canShowCertificates(route, listeners)) return
    report.warn(place, 'no effect: no listener of the route requests client certificates', 'key')
  })
}
