/** Regular expressions where a plain text can stand as well: `/^…$/`, for the whole value. */
import { linearRegExp } from './linear-regexp.ts'

/** Returns the regular expression of a text `/^…$/`; null for other texts. */
export const expressionOf = (text: string): string | null => /^\/(\^.*\$)\/$/s.exec(text)?.[1] ?? null

/**
 * Returns the fault of a text that is an expression which is not supported, or an expression or a pattern in another spelling;
 * null for a plain text. Such a text would silently equal no value.
 */
export function expressionFault(text: string): string | null {
  const expression = expressionOf(text)
  if (expression === null) {
    const meant = meantBy(text)
    return meant && `an expression is written /^…$/, for the whole value: ${meant}`
  }
  try {
    linearRegExp(expression)
    return null
  } catch (error) {
    return `not a regular expression that is supported here: ${(error as Error).message}`
  }
}

/** Returns the expression, as it has to be written, of a text that looks like one in another spelling; null if it does not. */
function meantBy(text: string): string | null {
  const [, slashed, flags = ''] = /^\/(.+)\/([dgimsuvy]{0,4})$/s.exec(text) ?? []
  const caseless = flags.includes('i') ? '; there are no flags: write [Aa] for a letter of either case' : ''
  if (slashed !== undefined) return `/${whole(slashed)}/${caseless}`
  if (text.length > 1 && (text.startsWith('^') || text.endsWith('$'))) return `/${whole(text)}/`
  // Media types have a slash.
  if (!/^\*[^/]+$|^[^/]+\*$/.test(text) || /^\*+$/.test(text)) return null
  return `/^${text.replace(/[.+?^$()[\]{}|\\/]/g, '\\$&').replaceAll('*', '.*')}$/`
}

/** Returns an expression that is searched for within a value as one of the whole value. */
function whole(expression: string): string {
  const [begins, ends] = [expression.startsWith('^'), /(^|[^\\])\$$/.test(expression)]
  if (begins && ends) return expression
  const group = expression.includes('|') ? `(${expression})` : expression
  const before = begins ? '' : expression.startsWith('.*') ? '^' : '^.*'
  const after = ends ? '' : expression.endsWith('.*') ? '$' : '.*$'
  return `${before}${group}${after}`
}
