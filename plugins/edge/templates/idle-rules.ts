/** Warnings of rules that never apply, because another rule of the same set decides on the same name. */

import type { Report } from '../../../config/faults.ts'
import { pointer } from '../../../config/faults.ts'
import { referencesOf } from '../../../config/template.ts'
import { parseTemplate } from './source.ts'

/** Rules in the order in which they run. */
interface Rules {
  readonly only?: readonly string[] | undefined
  readonly remove?: readonly string[] | undefined
  readonly rename?: Readonly<Record<string, string>> | undefined
  readonly set?: Readonly<Record<string, string | readonly string[]>> | undefined
  readonly add?: Readonly<Record<string, unknown>> | undefined
}

interface Reading {
  /** Returns one text for names that mean the same. */
  readonly canonical: (name: string) => string
  /** True if the later rules see nothing but what `only` has left, and `add` gives no value to a name in `set`. */
  readonly isStrict: boolean
}

/** Returns whether a template has a value for every request. One with a fault has none. */
export function isAlwaysPresent(text: string): boolean {
  try {
    return referencesOf(parseTemplate(text)).every(({ substitute }) => substitute !== null)
  } catch {
    return false
  }
}

const isPresent = (value: string | readonly string[]) => [value].flat().some(isAlwaysPresent)

/** Message for a rule that renames to a name that `set` replaces. */
export const replacedTarget = (from: string, to: string) =>
  `"set" replaces "${to}", so this only removes "${from}": write it under "remove"`

export function warnOfIdleRules(rules: Rules, at: string, { canonical, isStrict }: Reading, report: Report): void {
  const { only, remove = [], rename = {}, set = {}, add = {} } = rules
  const passed = only && new Set(only.map(canonical))
  const removed = new Set(remove.map(canonical))
  const values = new Map(Object.entries(set).map(([name, value]) => [canonical(name), value]))
  only?.forEach((name, index) => {
    if (removed.has(canonical(name))) report.warn(pointer(at, 'only', index), '"remove" removes it all the same')
  })
  remove.forEach((name, index) => {
    const isOut = isStrict && passed?.has(canonical(name)) === false
    const before = values.has(canonical(name)) ? '"set" replaces it' : isOut ? '"only" removes it' : null
    if (before !== null) report.warn(pointer(at, 'remove', index), `has no effect: ${before}`)
  })
  for (const [from, to] of Object.entries(rename)) {
    const place = pointer(at, 'rename', from)
    const isOut = isStrict && passed?.has(canonical(from)) === false
    const before = removed.has(canonical(from)) ? 'remove' : isOut ? 'only' : null
    if (before !== null) report.warn(place, `has no effect: "${before}" removes it before`, 'key')
    else if (values.has(canonical(to))) report.warn(place, replacedTarget(from, to), 'key')
  }
  for (const name of Object.keys(add)) {
    const value = values.get(canonical(name))
    if (value === undefined) continue
    const what = isPresent(value) ? 'gives it a value' : isStrict ? 'decides on it' : null
    if (what !== null) report.warn(pointer(at, 'add', name), `has no effect: "set" ${what}`, 'key')
  }
}
