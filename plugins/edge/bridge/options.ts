/** Keys of `edge`, and of `routes[].config`, that the bridge reads. */

import type { TSchema } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndRoute } from '../../../config/concern.ts'
import { HeaderName, Names } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { ResponsePath } from './response-path.ts'

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    host?: 'preserve' | 'upstream'
    responsePath?: 'auto' | ResponsePath
  }
}

export const bridgeKeys: readonly Key[] = [
  {
    name: 'host',
    options: Names(['preserve', 'upstream'], {
      description: "`Host` for the service: the client's, or the instance's own address."
    }),
    levels: gatewayAndRoute,
    protects: false
  },
  {
    name: 'responsePath',
    options: Names(['auto', 'raw', 'reply'], {
      description:
        "How a service's response goes to the client: `raw`, written to the socket as it comes, without `onSend` hooks; `reply`, through Fastify's reply, with them; `auto`, the default: `reply` where a plugin has an `onSend` hook on the route, else `raw`."
    }),
    levels: gatewayAndRoute,
    protects: false,
    needsBridge: "http-proxy always sends by Fastify's reply"
  }
]

export const bridgeRouteConfig: Readonly<Record<string, TSchema>> = {
  dropHeaders: Type.Array(HeaderName('Name of a header.'), {
    description: "Headers of which no client's copy reaches this route's services, by this route or any other."
  })
}
