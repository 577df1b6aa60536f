/** Keys of `edge`, and of `routes[].config`, that the bridge reads. */

import type { TSchema } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndRoute } from '../../../config/concern.ts'
import { Either, HeaderName, Names } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { ResponsePath } from './response-path.ts'

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    /** `preserve`, `upstream`, or the host itself. */
    host?: string
    responsePath?: 'auto' | ResponsePath
  }
}

const label = '[A-Za-z0-9]([\\w-]*[A-Za-z0-9])?'
const port = '0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])'

/** A host with a dot or a port, so that a misspelt `upstream` is a fault. */
const Host = Type.Unsafe<string>({
  type: 'string',
  pattern: `^(?=.{1,260}$)((${label}(\\.${label})+|localhost|\\[[0-9A-Fa-f:.]+\\])(:${port})?|${label}:${port})$`,
  expected: 'a host with a dot or a port, such as orders.internal or orders:8080'
})

export const bridgeKeys: readonly Key[] = [
  {
    name: 'host',
    options: Either({ enum: ['preserve', 'upstream'] }, Names(['preserve', 'upstream']), Host, {
      description:
        "`Host` sent to the service. `preserve`: the client's. `upstream`: the address of the instance. Another text: this host, such as `orders.internal` or `orders.internal:8080`."
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
