/** Schema of the keys of a route that is served through @fastify/http-proxy. */
import type { Static } from 'typebox'
import type { Position } from '../faults.ts'
import { Names, strict } from './kit.ts'
import Type from './type.ts'

const Via = Names(['http-proxy', 'bridge'], {
  description:
    'http-proxy: the route is served by @fastify/http-proxy with the options in `httpProxy`; its calls go through the mesh as on any route. It costs about three times the CPU and loses trailers, header order and WebSockets. bridge: by the gateway’s own proxy code. Default: bridge; with `mesh: false`: http-proxy, on which WebSockets work then.'
})

const HttpProxy = Type.Object(
  {
    rewritePrefix: Type.Optional(
      Type.String({
        pattern: '^/',
        expected: 'a path that starts with /',
        description:
          'Replaces the matched path; `:name` stands for the value of that parameter: `/v2/users/:id`. Default: the path is not changed.'
      })
    ),
    internalRewriteLocationHeader: Type.Optional(
      Type.Boolean({
        description:
          'true: in a `Location` header without a host, `rewritePrefix` is replaced by the matched path, unless it has parameters. Default: true.'
      })
    ),
    module: Type.Optional(
      Type.String({
        description:
          'Module whose default export is an object with further options of @fastify/http-proxy, including functions such as `preHandler` and `replyOptions.onResponse`.'
      })
    )
  },
  strict
)

/** The keys that a route has for it. */
export const viaHttpProxy = { via: Type.Optional(Via), httpProxy: Type.Optional(HttpProxy) }

export interface ViaHttpProxy {
  readonly via?: Static<typeof Via>
  /** `position`: place of the mapping in the file, for messages. */
  readonly httpProxy?: Static<typeof HttpProxy> & { readonly position: Position }
}
