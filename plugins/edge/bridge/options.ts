/** Keys of `edge` that the bridge reads. */
import type { Key } from '../../../config/concern.ts'
import { gatewayAndRoute } from '../../../config/concern.ts'
import { Names } from '../../../config/schema/kit.ts'

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    host?: 'preserve' | 'upstream'
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
  }
]
