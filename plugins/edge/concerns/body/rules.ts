/** Rules of one direction, compiled. */
import { ruleFor } from '../../protocol/media-types.ts'
import type { Scope } from '../../templates/values.ts'
import { Document, Value } from './document.ts'
import { keepOnly, keptBy, lastItemsFirst, moveAll, moveBetween, pointerOf, putAt, remove } from './edits.ts'
import type { BodyRule } from './options.ts'
import { valued } from './options.ts'
import { compileJson } from './values.ts'

type Edit = (document: Document, scope: Scope) => void

/** A rule for some bodies. */
export interface Step {
  /** Returns whether the rule applies to responses with a status. */
  readonly hasStatus: (status: number) => boolean
  /** Returns whether the rule applies to bodies of a media type. */
  readonly hasType: (essence: string) => boolean
  readonly edit: Edit
}

export function compileRule({ statuses, types, only, remove: removed, rename, ...values }: BodyRule): Step {
  const ranges = types.map((range) => [range, true] as const)
  const classes = statuses && new Set<number | string>(statuses)
  const edits: Edit[] = []
  if (only !== undefined) {
    const kept = keptBy(only.map(pointerOf))
    edits.push((document) => {
      const { root } = document
      if (keepOnly(document, root, kept) || root.isObject || root.isList) return
      // A text or a number, of which no pointer names a member.
      document.replaceRoot(new Value(Buffer.from('null')))
    })
  }
  for (const pointer of (removed ?? []).map(pointerOf).sort(lastItemsFirst)) {
    edits.push((document) => remove(document, document.root, pointer))
  }
  if (rename !== undefined) {
    const moves = Object.entries(rename).map(([from, to]) => moveBetween(from, to))
    const sorted = moves.toSorted((a, b) => lastItemsFirst([...a.base, ...a.from], [...b.base, ...b.from]))
    edits.push((document) => moveAll(document, sorted))
  }
  for (const operation of valued) {
    for (const [text, value] of Object.entries(values[operation] ?? {})) {
      edits.push(putEdit(text, value, operation === 'set'))
    }
  }
  return {
    hasStatus: (status) => classes === undefined || classes.has(status) || classes.has(`${Math.floor(status / 100)}xx`),
    hasType: (essence) => ruleFor(ranges, essence) === true,
    edit: (document, scope) => {
      for (const edit of edits) edit(document, scope)
    }
  }
}

/** A value of which a part is missing removes what is there if it is `set`, so that no value of the sender stays. */
function putEdit(text: string, value: unknown, isForced: boolean): Edit {
  const pointer = pointerOf(text)
  const jsonOf = compileJson(value)
  return (document, scope) => {
    const bytes = jsonOf(scope)
    if (bytes !== undefined) putAt(document, pointer, () => new Value(bytes), isForced)
    else if (isForced && pointer.length > 0) remove(document, document.root, pointer)
  }
}

/** Returns a body with the changes of some steps; the same bytes if none changes it. Throws `Unfit`. */
export function edited(bytes: Buffer, steps: readonly Step[], scope: Scope, maxSize: number): Buffer {
  const document = new Document(bytes)
  for (const { edit } of steps) edit(document, scope)
  // Values under a `*` are written as often as the body has items.
  return document.bytes(maxSize * 2 + 64 * 1024)
}
