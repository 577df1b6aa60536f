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
      description: "`Host` sent to the service. `preserve`: the client's. `upstream`: the address of the instance."
    }),
    levels: gatewayAndRoute,
    protects: false
  },
  {
    name: 'responsePath',
    options: Names(['auto', 'raw', 'reply'], {
      description:
        "Path of responses to the client. `raw`: written to the socket as they arrive; `onSend` hooks do not run. `reply`: sent through Fastify's reply; `onSend` hooks run. `auto` (default): `reply` if a plugin has an `onSend` hook on the route, else `raw`."
    }),
    levels: gatewayAndRoute,
    protects: false,
    needsBridge: "http-proxy always sends through Fastify's reply"
  }
]

export const bridgeRouteConfig: Readonly<Record<string, TSchema>> = {
  dropHeaders: Type.Array(HeaderName('Name of a header.'), {
    description:
      "Headers that are removed from clients' requests on every route that leads to the services of this route."
  })
}
