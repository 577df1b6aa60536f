/** Warnings of members of a call's response that two settings contradict each other about. */
import type { Report } from '../faults.ts'
import { pointer } from '../faults.ts'
import { covers, meet, membersOf } from '../json-pointer.ts'
import type { Reshaping } from '../schema/compose.ts'

/** Most pairs of pointers that are compared: a call with more is not checked. */
const mostPairs = 100_000

export function warnOfIdleMembers(at: string, { pick, drop = [], rename = {} }: Reshaping, report: Report): void {
  const moved = Object.keys(rename)
  if ((pick?.length ?? 0) * (drop.length + moved.length) + drop.length * moved.length > mostPairs) return
  const picked = pick?.map(membersOf)
  const dropped = drop.map((text) => [text, membersOf(text)] as const)
  const dropOf = (members: readonly string[]) => dropped.find(([, outer]) => covers(outer, members))?.[0]
  const isOut = (members: readonly string[]) => picked?.some((each) => meet(each, members)) === false
  picked?.forEach((members, index) => {
    const text = dropOf(members)
    if (text !== undefined) report.warn(pointer(at, 'pick', index), `"drop" removes "${text}" all the same`)
  })
  dropped.forEach(([, members], index) => {
    if (isOut(members)) report.warn(pointer(at, 'drop', index), 'has no effect: "pick" leaves it out')
  })
  for (const from of moved) {
    const members = membersOf(from)
    const before = dropOf(members) !== undefined ? '"drop" removes it' : isOut(members) ? '"pick" leaves it out' : null
    if (before !== null) report.warn(pointer(at, 'rename', from), `has no effect: ${before} before`, 'key')
  }
}
