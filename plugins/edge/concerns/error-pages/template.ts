/** Templates of error pages: `{{status}}` and other placeholders, whose values are escaped for the format of the page. */
import { didYouMean } from '../../../../config/nearest.ts'

/** Largest page, in bytes. */
export const MAX_PAGE = 256 * 1024

/** Values of the placeholders. None of them is chosen by the client, except a request id that a trusted peer has sent. */
export interface PageValues {
  readonly status: number
  readonly reason: string
  readonly code: string
  readonly requestId: string
}

export const sample: PageValues = { status: 404, reason: 'Not Found', code: 'JW_NO_ROUTE', requestId: '7' }

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;'
}
const html = (text: string) => text.replace(/[&<>"']/g, (character) => entities[character]!)
const json = (text: string) => JSON.stringify(text).slice(1, -1)
const plain = (text: string) => text.replace(/[^\t -~\u00a0-\uffff]/g, ' ')

const escapes: Readonly<Record<string, (text: string) => string>> = { html, json, problem: json, text: plain }
const names = Object.keys(sample) as (keyof PageValues)[]

/** Returns the function that fills in a template. Throws an error for an unknown placeholder. */
export function parseTemplate(text: string, format: string): (values: PageValues) => string {
  if (Buffer.byteLength(text) > MAX_PAGE) throw new Error(`a page has at most ${MAX_PAGE} bytes`)
  const escaped = escapes[format]!
  const parts = text.split(/\{\{ *(\w+) *\}\}/)
  // Texts and names of placeholders alternate.
  for (const [index, name] of parts.entries()) {
    if (index % 2 === 0 || names.some((each) => each === name)) continue
    throw new Error(
      `unknown placeholder "{{${name}}}"${didYouMean(name, names) || `; there are ${names.map((each) => `{{${each}}}`).join(', ')}`}`
    )
  }
  if (parts.length === 1) return () => text
  return (values) => {
    let filled = parts[0]!
    for (let index = 1; index < parts.length; index += 2) {
      filled += escaped(String(values[parts[index] as keyof PageValues])) + parts[index + 1]!
    }
    return filled
  }
}
