/** `excludeHeaders`: request headers that two requests need not have in common to share a response. */

import type { Report } from '../../../../config/faults.ts'
import { pointer } from '../../../../config/faults.ts'
import { HeaderName } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const ExcludeHeaders = Type.Array(HeaderName('A request header.'), {
  default: [],
  description:
    'Request headers on which the response does not depend. All others, except tracing headers, must be equal for two requests to share a response. Not allowed: Authorization, Cookie, Host, Range and conditional headers.'
})

/** Headers that always distinguish requests: they name the caller, the resource, or a part or version of it. */
const essential = /^(host|authorization|proxy-authorization|cookie|range|if-.*)$/i

export function checkExcluded(at: string, names: readonly string[], report: Report): void {
  names.forEach((name, index) => {
    if (essential.test(name))
      report.fault(pointer(at, index), `${name} cannot be excluded: requests that differ in it never share a response`)
  })
}
