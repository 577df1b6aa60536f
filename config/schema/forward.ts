/** Schema and type of `forward`: calls to services without the mesh. */
import type { Static } from 'typebox'
import { strict } from './kit.ts'
import Type from './type.ts'

export const ForwardTls = Type.Object(
  {
    ca: Type.Optional(
      Type.String({ description: "PEM file of the trusted certificate authorities. Default: Node's." })
    ),
    cert: Type.Optional(Type.String({ description: 'PEM file of the client certificate.' })),
    key: Type.Optional(Type.String({ description: 'PEM file of the key of the client certificate.' })),
    serverName: Type.Optional(
      Type.String({
        description: 'Server name (SNI), which the certificate must have. Default: the host of the address.'
      })
    )
  },
  { ...strict, description: 'TLS toward https addresses.' }
)

/** Settings of calls to one service. */
export interface ForwardPolicy {
  /** URL of a sidecar for services without an address of their own. */
  readonly sidecar?: string
  readonly host?: string
  /** Durations in milliseconds. */
  readonly connectTimeout: number
  readonly timeout: number
  readonly idleTimeout: number | false
  readonly responseTimeout?: number | false
  readonly maxRequests: number
  /** Bytes. */
  readonly maxHeaderSize: number
  readonly tls?: Static<typeof ForwardTls>
}
