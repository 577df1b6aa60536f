import type { Position } from './faults.ts'
import type { YamlSource } from './yaml-source.ts'

type Dashes = readonly (Position | null)[]

const known = new WeakMap<YamlSource, Map<number, Dashes>>()

/** Returns the position of the dash of an empty item (`-`) of a list, whose event has no position; null for a list in brackets. */
export function dashOf(source: YamlSource, list: number, index: number): Position | null {
  const lists = known.get(source) ?? new Map<number, Dashes>()
  known.set(source, lists)
  const dashes = lists.get(list) ?? dashesOf(source, list)
  lists.set(list, dashes)
  return dashes[index] ?? null
}

/** Returns the positions of the empty items of a list. All its dashes are in one column, and all other lines deeper. */
function dashesOf(source: YamlSource, list: number): Dashes {
  const first = source.start(list)
  const lines = source.text.split('\n')
  if (first === null || lines[first.line - 1]![first.column - 1] !== '-') return []
  const { column } = first
  const isDash = (line: string) => line[column - 1] === '-' && line.slice(0, column - 1).trim() === ''
  let { line } = first
  return source.items(list).map((item, index) => {
    const start = source.start(item)
    if (start !== null) {
      line = start.line
      return null
    }
    if (index > 0)
      do line++
      while (line <= lines.length && !isDash(lines[line - 1]!))
    return { line, column }
  })
}
