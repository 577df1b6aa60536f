/** Values of headers: values of templates as a header section allows them. */
import { fieldValue } from '../bridge/response-fields.ts'
import { headerValue } from '../bridge/upstream-headers.ts'
import type { TextPlace } from './values.ts'

/**
 * The place of a header's value. A part of a header section is taken as it was sent. Other values that are not printable ASCII,
 * such as claims with line breaks, are percent-encoded.
 */
export const inHeader: TextPlace = {
  value: (value, isField) => {
    if (!isField) return headerValue(value)
    if (value === undefined || value === null) return undefined
    const text = String(value).trim()
    return fieldValue.test(text) ? text : headerValue(text)
  },
  literal: (text) => text
}
