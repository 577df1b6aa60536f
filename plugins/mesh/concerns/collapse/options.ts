/** `mesh.collapse`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { Either, HeaderName, SizeOrZero, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { checkExcluded, ExcludeHeaders } from '../../core/sharing/exclude-headers.ts'

export const Collapse = Type.Object(
  {
    headers: Type.Array(HeaderName('A request header.'), {
      default: [],
      description: 'Tracing headers that must be equal, too, for two requests to be identical.'
    }),
    excludeHeaders: ExcludeHeaders,
    maxBody: SizeOrZero(
      'Largest response body that is shared; for a larger one, later callers send their own request.',
      {
        default: '1mb'
      }
    )
  },
  strict
)

export type CollapseOptions = Static<typeof Collapse>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    collapse?: CollapseOptions | boolean
  }
}

export const collapseKey: Key = {
  name: 'collapse',
  options: Either({ type: 'boolean' }, Type.Boolean(), Collapse, {
    description: 'Identical GET and HEAD calls in flight share one response.'
  }),
  levels: everyLevel,
  check(options: CollapseOptions | true, at, { report }) {
    if (options !== true && report.sound(at)) checkExcluded(`${at}/excludeHeaders`, options.excludeHeaders, report)
  }
}
