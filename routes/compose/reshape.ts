/** Compiles `pick`, `drop`, `rename` and `edit` into one function. It changes the value in place or returns another one. */
import { membersOf, moveOf } from '../../config/json-pointer.ts'
import type { EditStep, Reshaping } from '../../config/schema/compose.ts'
import { append, flatten, moveAll, removeAll, setOwn } from './members.ts'
import { textOfNumber } from './raw-number.ts'

type Reshape = (value: unknown) => unknown

export function compileReshaping({ pick, drop, rename, edit = [] }: Reshaping): Reshape {
  const steps: Reshape[] = []
  if (pick !== undefined) {
    const tree = treeOf(pick)
    steps.push((value) => picked(value, tree))
  }
  for (const text of drop ?? []) {
    const members = membersOf(text)
    steps.push(inPlace((value) => removeAll(value, members)))
  }
  if (rename !== undefined) {
    const moves = Object.entries(rename).map(([from, to]) => moveOf(from, to))
    steps.push(inPlace((value) => moveAll(value, moves)))
  }
  for (const step of edit) steps.push(inPlace(compileStep(step)))
  return (value) => steps.reduce((shaped, step) => step(shaped), value)
}

const inPlace =
  (change: (value: unknown) => void): Reshape =>
  (value) => {
    change(value)
    return value
  }

function compileStep(step: EditStep): (value: unknown) => void {
  const { move, append: more, delete: removed, flatten: nested, to } = step
  if (move !== undefined) {
    const moves = [moveOf(move, to!)]
    return (value) => moveAll(value, moves)
  }
  if (more !== undefined) {
    const moved = moveOf(more, to!)
    return (value) => append(value, moved)
  }
  if (removed !== undefined) {
    const members = membersOf(removed)
    return (value) => removeAll(value, members)
  }
  const [members, target] = [membersOf(nested!), to === undefined ? null : membersOf(to)]
  return (value) => flatten(value, members, target)
}

/** Members to keep; null keeps the whole value. */
type Tree = Map<string, Tree> | null

function treeOf(pointers: readonly string[]): Tree {
  const root: Tree = new Map()
  for (const text of pointers) {
    let node: Map<string, Tree> = root
    const members = membersOf(text)
    for (const [at, member] of members.entries()) {
      const known = node.get(member)
      // The whole value is kept already.
      if (known === null) break
      const inner: Tree = at === members.length - 1 ? null : (known ?? new Map())
      node.set(member, inner)
      if (inner === null) break
      node = inner
    }
  }
  return root
}

function picked(value: unknown, tree: Tree): unknown {
  if (tree === null || typeof value !== 'object' || value === null) return value
  const all = tree.get('*')
  if (textOfNumber(value) !== undefined) return value
  if (Array.isArray(value)) return all === undefined ? [] : value.map((item) => picked(item, all))
  const kept = {}
  for (const [member, inner] of tree) {
    if (member !== '*' && Object.hasOwn(value, member)) setOwn(kept, member, picked(Reflect.get(value, member), inner))
  }
  if (all !== undefined) {
    for (const [member, inner] of Object.entries(value)) {
      if (!Object.hasOwn(kept, member)) setOwn(kept, member, picked(inner, all))
    }
  }
  return kept
}
