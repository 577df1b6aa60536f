/** Header conditions of rules. */
import { expressionOf } from '../../../../config/expressions.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { linearRegExp } from '../../../../config/linear-regexp.ts'
import type { FieldValue } from './options.ts'

/**
 * Returns the test of one header, for a rule that denies or allows. A header may be repeated, also in a spelling that some
 * services read alike (`x_role`), and the gateway does not know which one a service uses. So one value is enough to deny,
 * and all values must fit to allow.
 */
export function fieldTest(
  name: string,
  wanted: FieldValue,
  isDeny: boolean
): (rawHeaders: readonly string[]) => boolean {
  const lower = name.toLowerCase()
  const canonical = canonicalName(name)
  const isNamed = (given: string) => given.length === canonical.length && canonicalName(given) === canonical
  if (typeof wanted === 'boolean') {
    // A service may overlook a header in another spelling.
    const isOwn = wanted === isDeny ? isNamed : (given: string) => given.toLowerCase() === lower
    return (rawHeaders) => hasField(rawHeaders, isOwn) === wanted
  }
  const tests = [wanted].flat().map((text) => {
    const expression = expressionOf(text)
    return expression === null ? (value: string) => value === text : linearRegExp(expression)
  })
  return (rawHeaders) => {
    let fitting = 0
    let others = 0
    for (let i = 0; i < rawHeaders.length; i += 2) {
      if (!isNamed(rawHeaders[i]!)) continue
      if (tests.some((test) => test(rawHeaders[i + 1]!))) fitting++
      else others++
    }
    return fitting > 0 && (isDeny || others === 0)
  }
}

function hasField(rawHeaders: readonly string[], isNamed: (name: string) => boolean): boolean {
  for (let i = 0; i < rawHeaders.length; i += 2) if (isNamed(rawHeaders[i]!)) return true
  return false
}
