/** Keys of `mesh` for the call itself: timeouts, subset and circuit breaker. */

import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Duration, orOff } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { checkTimeouts } from './check-timeouts.ts'
import { circuitBreakerKey } from './circuit-breaker-options.ts'

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    /** Duration in milliseconds. */
    timeout: number
    /** Duration in milliseconds. */
    attemptTimeout?: number
    /** Duration in milliseconds. */
    idleTimeout: number | false
    subset?: string
  }
}

export const callKeys: readonly Key[] = [
  {
    name: 'timeout',
    options: Duration(
      "Longest time for a call with all its attempts, from the end of the request to the response's headers."
    ),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'attemptTimeout',
    options: Duration(
      "Longest time for one attempt, from the end of the request to the response's headers. Unset, only `timeout` ends attempts."
    ),
    levels: everyLevel,
    checkAll: checkTimeouts
  },
  {
    name: 'idleTimeout',
    options: orOff(
      Duration(
        'Longest pause within a response body. A client that pauses within its request body gets at least this long, too.'
      )
    ),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'subset',
    options: Type.String({ description: "Name of one of the service's `subsets`; calls go only to its instances." }),
    levels: ['route']
  },
  circuitBreakerKey
]
