/** Checks that the parts of a composed response have places of their own, and that no key of theirs is without effect. */
import type { Report } from '../faults.ts'
import { pointer } from '../faults.ts'
import { membersOf } from '../json-pointer.ts'
import type { CallConfig, ComposeConfig } from '../schema/compose.ts'

/** Returns the place of a part in the response: empty for the top. */
export function placeOf({ group, at }: Pick<CallConfig, 'group' | 'at'>): readonly string[] {
  return group === undefined ? membersOf(at ?? '') : [group]
}

export function checkParts(at: string, { calls }: ComposeConfig, report: Report): void {
  const taken = new Map<string, string>()
  /** Claims a place; returns the call that has it, or one above it. */
  const claim = (members: readonly string[], name: string): string | undefined => {
    const key = JSON.stringify(members)
    const other = taken.get(key)
    taken.set(key, other ?? name)
    return other
  }
  for (const [name, call] of Object.entries(calls)) {
    const place = pointer(at, 'calls', name)
    if (call.group !== undefined && call.at !== undefined) {
      report.fault(`${place}/at`, 'a part has either a group or a place, not both', 'key')
      continue
    }
    if (!call.include) {
      checkExcluded(place, call, report)
      continue
    }
    const own = placeOf(call)
    if (own.length > 0) {
      const other = claim(own, name)
      if (other !== undefined) {
        const key = call.group === undefined ? 'at' : 'group'
        report.fault(`${place}/${key}`, `the call "${other}" has its part there, too`)
      }
    } else if (call.as === 'text') report.fault(place, 'a text needs a "group" or a place ("at") in the response')
    else {
      for (const [index, member] of (call.pick ?? []).entries()) {
        const [first = ''] = membersOf(member)
        const target = membersOf(renamed(call, member) ?? first)
        const other = first === '*' ? undefined : claim(target.slice(0, 1), name)
        if (other === undefined || other === name) continue
        report.fault(pointer(place, 'pick', index), `the call "${other}" has a member "${target[0]}", too`)
      }
    }
  }
}

/** Returns the new place of a member; undefined if it is not renamed. */
function renamed({ rename = {} }: CallConfig, member: string): string | undefined {
  return Object.hasOwn(rename, member) ? rename[member] : undefined
}

const ofParts = ['target', 'pick', 'drop', 'rename', 'edit', 'group', 'at', 'default'] as const

function checkExcluded(place: string, call: CallConfig, report: Report): void {
  for (const key of ofParts) {
    if (Object.hasOwn(call, key)) report.fault(`${place}/${key}`, 'no effect with include: false', 'key')
  }
}
