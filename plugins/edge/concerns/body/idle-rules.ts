/** Warnings of rules for bodies that never apply, because another rule of the same set decides on the same value. */
import type { Report } from '../../../../config/faults.ts'
import { pointer } from '../../../../config/faults.ts'
import { covers, meet, membersOf } from '../../../../config/json-pointer.ts'
import { isAlwaysPresent, replacedTarget } from '../../templates/idle-rules.ts'
import type { BodyRule } from './options.ts'
import { textsIn } from './options.ts'

/** Most pairs of pointers that are compared: a set with more is not checked. */
const mostPairs = 100_000

export function warnOfIdleRules(
  { only, remove = [], rename = {}, set = {}, add = {} }: BodyRule,
  at: string,
  report: Report
) {
  const moves = Object.entries(rename)
  if ((only?.length ?? 0) * (remove.length + moves.length) + remove.length * moves.length > mostPairs) return
  const kept = only?.map(membersOf)
  const removed = remove.map((text) => [text, membersOf(text)] as const)
  const removerOf = (members: readonly string[]) => removed.find(([, outer]) => covers(outer, members))?.[0]
  const isOut = (members: readonly string[]) => kept?.some((each) => meet(each, members)) === false
  kept?.forEach((members, index) => {
    const remover = removerOf(members)
    if (remover === undefined) return
    report.warn(pointer(at, 'only', index), `"${remover}" of "remove" removes it all the same`)
  })
  removed.forEach(([, members], index) => {
    if (isOut(members)) report.warn(pointer(at, 'remove', index), 'has no effect: "only" removes it')
  })
  for (const [from, to] of moves) {
    const place = pointer(at, 'rename', from)
    const remover = removerOf(membersOf(from))
    const before = remover !== undefined ? `"${remover}" of "remove"` : isOut(membersOf(from)) ? '"only"' : null
    if (before !== null) report.warn(place, `has no effect: ${before} removes it before`, 'key')
    else if (from !== '' && Object.hasOwn(set, to)) report.warn(place, replacedTarget(from, to), 'key')
  }
  for (const text of Object.keys(add)) {
    if (!Object.hasOwn(set, text) || !textsIn(set[text]).every(isAlwaysPresent)) continue
    report.warn(pointer(at, 'add', text), 'has no effect: "set" gives it a value', 'key')
  }
}
