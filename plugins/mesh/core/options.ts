/** Keys of `mesh` that belong to the call itself. */
import Type from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Duration, orOff } from '../../../config/schema/kit.ts'

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    /** Milliseconds. */
    idleTimeout: number | false
    subset?: string
  }
}

export const callKeys: readonly Key[] = [
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
  }
]
