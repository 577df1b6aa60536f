/** `excludeHeaders`: request headers that do not keep two requests from sharing a response. */

import type { Report } from '../../../../config/faults.ts'
import { pointer } from '../../../../config/faults.ts'
import { HeaderName } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const ExcludeHeaders = Type.Array(HeaderName('A request header.'), {
  default: [],
  description:
    'Request headers that do not change the response. All others must be equal for two requests to share a response, except headers of tracing. Not allowed: Authorization, Cookie, Host, Range and conditions.'
})

/** Headers that always make requests different: they name the caller, the resource, or a part or version of it. */
const essential = /^(host|authorization|proxy-authorization|cookie|range|if-.*)$/i

export function checkExcluded(at: string, names: readonly string[], report: Report): void {
  names.forEach((name, index) => {
    if (essential.test(name)) report.fault(pointer(at, index), `requests that differ in ${name} never share a response`)
  })
}
