/** Keys of `mesh` that belong to the call itself. */

import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Duration, orOff } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { checkTimeouts } from './check-timeouts.ts'
import { circuitBreakerKey } from './circuit-breaker-options.ts'

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    /** Milliseconds. */
    timeout: number
    /** Milliseconds. */
    attemptTimeout?: number
    /** Milliseconds. */
    idleTimeout: number | false
    subset?: string
  }
}

export const callKeys: readonly Key[] = [
  {
    name: 'timeout',
    options: Duration("Whole call, all attempts, from the end of the request to the response's headers."),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'attemptTimeout',
    options: Duration(
      "One attempt, from the end of the request to the response's headers. Unset, `timeout` alone ends attempts."
    ),
    levels: everyLevel,
    checkAll: checkTimeouts
  },
  {
    name: 'idleTimeout',
    options: orOff(Duration('Longest silence once the response runs; of a caller within its request at least this.')),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'subset',
    options: Type.String({ description: "One of the service's `subsets`." }),
    levels: ['route']
  },
  circuitBreakerKey
]
