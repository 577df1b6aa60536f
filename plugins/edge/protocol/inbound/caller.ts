import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Admission, Inbound, MeshCaller } from '../../../seam-inbound.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import { consumerOf } from '../../consumers/consumer.ts'

/** Property of a connection with its caller. */
const CALLER = Symbol('caller in the mesh')

/** The caller of a connection, from the certificate that was verified in the handshake. */
export class ConnectionCaller {
  readonly #inbound: () => Inbound | null
  readonly #caller: MeshCaller
  /** Value of `x-forwarded-client-cert` for services, in Envoy's format. */
  readonly forwarded: string
  /** One frozen object per connection. */
  readonly consumer: Consumer

  /** `inbound` returns the service as which the listener accepts calls now. */
  constructor(inbound: () => Inbound | null, caller: MeshCaller, { own, hash }: { own: string; hash: string }) {
    this.#inbound = inbound
    this.#caller = caller
    this.forwarded = `By=${quoted(own)};Hash=${hash};URI=${quoted(caller.id)}`
    this.consumer = consumerOf({ id: caller.service })
  }

  /** Returns the current decision; it may change while the connection is open. */
  admission(): Admission {
    return this.#inbound()?.admit(this.#caller) ?? 'unknown'
  }
}

/** Returns a value of `x-forwarded-client-cert`; one with separators is quoted, so that it adds no key and no element. */
const quoted = (value: string) =>
  /[,;="\\]/.test(value) ? `"${value.replaceAll(/["\\]/g, (character) => `\\${character}`)}"` : value

/** Sets the caller of a connection. Returns false if the certificate is not that of a service in the trust domain. */
export function recordCaller(socket: TLSSocket, inbound: () => Inbound | null): boolean {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined
  const current = inbound()
  const caller = current?.callerOf(certificate?.subjectAltName) ?? null
  const own = current?.credentials?.id
  if (caller === null || own === undefined) return false
  const hash = certificate!.fingerprint256.replaceAll(':', '').toLowerCase()
  Reflect.set(socket, CALLER, new ConnectionCaller(inbound, caller, { own, hash }))
  return true
}

/** Returns the caller of a connection, which may be the proxy object of an HTTP/2 request; undefined without one. */
export function callerOf(socket: Socket): ConnectionCaller | undefined {
  return Reflect.get(socket, CALLER)
}

/** Returns whether a request may pass to code that runs no hooks: if its connection has a caller, that caller is allowed. */
export function passesWithoutHooks(socket: Socket): boolean {
  const caller = callerOf(socket)
  return caller === undefined || caller.admission() === 'allowed'
}
