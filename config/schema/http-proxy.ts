/** Routes that are served through @fastify/http-proxy. */
import type { Static } from 'typebox'
import Type from 'typebox'
import type { Position } from '../faults.ts'
import { Names, strict } from './kit.ts'

const Via = Names(['http-proxy'], {
  description:
    'http-proxy: the route is served through @fastify/http-proxy, with the options of `httpProxy`; calls go over the mesh as on any route. Costs about three times the CPU; trailers, the order of headers and WebSockets are lost. Default: the gateway’s own bridge.'
})

const HttpProxy = Type.Object(
  {
    rewritePrefix: Type.Optional(
      Type.String({
        pattern: '^/',
        expected: 'a path that starts with /',
        description:
          'Put in place of the matched path; `:name` is the value of the parameter of that name: `/v2/users/:id`. Default: the path goes on as it is.'
      })
    ),
    internalRewriteLocationHeader: Type.Optional(
      Type.Boolean({
        description:
          'Whether a `Location` without a host gets the matched path back in place of `rewritePrefix`, where that has no parameters. Default: true.'
      })
    ),
    module: Type.Optional(
      Type.String({
        description:
          'Module whose default export has further options of @fastify/http-proxy, functions such as `preHandler` and `replyOptions.onResponse` included.'
      })
    )
  },
  strict
)

/** Keys of a route. */
export const viaHttpProxy = { via: Type.Optional(Via), httpProxy: Type.Optional(HttpProxy) }

export interface ViaHttpProxy {
  readonly via?: Static<typeof Via>
  /** With the position in the file, for messages. */
  readonly httpProxy?: Static<typeof HttpProxy> & { readonly position: Position }
}
