/**
 * TLS of a listener that services reach through the mesh. It lives as long as the listener. Certificate and authorities come
 * from the mesh and change while the listener runs; open connections are not affected. Until the first certificate has
 * arrived, no handshake succeeds.
 */
import { constants } from 'node:crypto'
import type { Server as HttpServer } from 'node:http'
import type { Socket } from 'node:net'
import type { SecureContextOptions, Server, TlsOptions as ServerOptions, TLSSocket } from 'node:tls'
import type { Listen } from '../../../../config/schema.ts'
import type { Inbound } from '../../../seam-inbound.ts'
import { reportRefusal } from '../refusals.ts'
import { addressOf, cacheAddress } from '../tls/client-address.ts'
import { reportFailedHandshake } from '../tls/failed-handshakes.ts'
import { recordCaller } from './caller.ts'
import { whenProtocolIsKnown } from './first-bytes.ts'

const context: SecureContextOptions = {
  minVersion: 'TLSv1.2',
  // A resumed session would outlive the caller's certificate and the authority that it was verified with.
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_TICKET
}

/** Returns options for the constructor of such a server. It has no certificate yet. */
export function inboundServerOptions({ http2 }: Pick<Listen, 'http2'>): ServerOptions {
  return {
    ...context,
    requestCert: true,
    rejectUnauthorized: true,
    // Consul's own proxy offers only `h2`, whatever its client speaks.
    ...(!http2 && { ALPNCallback: ({ protocols }) => protocols.find((name) => name === 'http/1.1') ?? protocols[0] })
  }
}

export class InboundTls {
  readonly #server: HttpServer & Server
  readonly #listen: () => Listen
  #inbound: Inbound | null = null
  #stopHearing = () => {}

  constructor(server: HttpServer, listen: () => Listen) {
    this.#server = server as HttpServer & Server
    this.#listen = listen
    server.prependListener('connection', (raw: Socket) => cacheAddress(raw))
    server.prependListener('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      reportFailedHandshake(server, error, socket, false)
    })
    this.#admitBeforeOthers()
  }

  /** Presents the certificate of a service from now on, and accepts its callers. */
  use(inbound: Inbound | null): void {
    if (inbound === this.#inbound || inbound === null) return
    this.#stopHearing()
    this.#inbound = inbound
    this.#stopHearing = inbound.onChange(this.#apply)
    this.#apply()
  }

  close(): void {
    this.#stopHearing()
  }

  readonly #apply = (): void => {
    const credentials = this.#inbound?.credentials ?? null
    if (credentials === null) return
    const { cert, key, ca } = credentials
    this.#server.setSecureContext({ ...context, cert, key, ca })
  }

  /** Hides connections from all listeners of the event until their caller and protocol are known. */
  #admitBeforeOthers(): void {
    const server = this.#server
    const { emit } = server
    const current = () => this.#inbound
    const options = this.#listen
    server.emit = function emitAdmitted(this: object, event: string, ...args: unknown[]) {
      // A facade, whose prototype is the server, inherits this method.
      if (this !== server || event !== 'secureConnection') return Reflect.apply(emit, this, [event, ...args]) as boolean
      const [socket] = args as [TLSSocket]
      const pass = () => emit.call(server, event, socket)
      if (!recordCaller(socket, current)) {
        const code = 'NOT_IN_TRUST_DOMAIN'
        reportRefusal(server, { reason: 'client-certificate', ip: addressOf(socket), code })
        socket.destroy()
        return true
      }
      const { http2, timeouts } = options()
      if (http2) whenProtocolIsKnown(socket, timeouts.headers, pass)
      else pass()
      return true
    } as typeof emit
  }
}
