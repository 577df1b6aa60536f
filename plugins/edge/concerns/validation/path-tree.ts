/** The paths of a document, found by their segments: static ones before those with parameters. */
import { linearGroups } from '../../../../config/linear-regexp.ts'
import type { Texts } from './values.ts'

/** A segment with parameters, such as `{id}` or `{name}.json`. */
interface Variable<T> {
  readonly text: string
  readonly names: readonly string[]
  readonly match: (segment: string) => readonly string[] | null
  readonly node: Node<T>
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>
  readonly variables: Variable<T>[]
  /** Values by method; null for a path that the document does not have. */
  methods: Map<string, T> | null
}

const nodeOf = <T>(): Node<T> => ({ literals: new Map(), variables: [], methods: null })

export interface FoundPath<T> {
  readonly methods: ReadonlyMap<string, T>
  readonly path: Texts
}

export class PathTree<T> {
  readonly #root = nodeOf<T>()

  /** Adds a method of a template. Throws an error for a template that is malformed. */
  add(template: string, method: string, value: T): void {
    let node = this.#root
    for (const segment of segmentsOf(template)) node = next(node, segment)
    node.methods ??= new Map()
    if (!node.methods.has(method)) node.methods.set(method, value)
  }

  /** Returns the path that has a method; else one without it; null if there is none. */
  find(pathname: string, method: string): FoundPath<T> | null {
    const segments = segmentsOf(pathname)
    let other: FoundPath<T> | null = null
    const search = (node: Node<T>, at: number, values: readonly (readonly [string, string])[]): FoundPath<T> | null => {
      const segment = segments[at]
      if (segment === undefined) {
        if (node.methods === null) return null
        const found = { methods: node.methods, path: new Map(values.map(([name, value]) => [name, [value]])) }
        if (node.methods.has(method)) return found
        other ??= found
        return null
      }
      const literal = node.literals.get(decoded(segment))
      const fixed = literal === undefined ? null : search(literal, at + 1, values)
      if (fixed !== null) return fixed
      for (const { names, match, node: inner } of node.variables) {
        const texts = match(segment)
        if (texts === null) continue
        const found = search(inner, at + 1, [...values, ...names.map((name, index) => [name, texts[index]!] as const)])
        if (found !== null) return found
      }
      return null
    }
    return search(this.#root, 0, []) ?? other
  }
}

const segmentsOf = (path: string): string[] => path.split('/').slice(1)

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

function next<T>(node: Node<T>, segment: string): Node<T> {
  if (!/[{}]/.test(segment)) {
    const text = decoded(segment)
    let inner = node.literals.get(text)
    if (inner === undefined) {
      inner = nodeOf()
      node.literals.set(text, inner)
    }
    return inner
  }
  // Names of parameters do not matter for which paths a template has.
  const text = segment.replace(/\{[^{}]*\}/g, '{}')
  const names = [...segment.matchAll(/\{([^{}]+)\}/g)].map((match) => match[1]!)
  const known = node.variables.find((each) => each.text === text && each.names.join() === names.join())
  if (known !== undefined) return known.node
  const parts = text.split('{}')
  if (parts.some((part) => /[{}]/.test(part)) || parts.length !== names.length + 1) {
    throw new Error(`"${segment}" is not a segment with parameters such as {id}`)
  }
  const variable = { text, names, match: matcherOf(parts), node: nodeOf<T>() }
  node.variables.push(variable)
  // Segments with more static text come first.
  node.variables.sort((a, b) => b.text.length - a.text.length)
  return variable.node
}

function matcherOf(parts: readonly string[]): (segment: string) => readonly string[] | null {
  if (parts.length === 2 && parts.every((part) => part === '')) return (segment) => (segment === '' ? null : [segment])
  const literal = (text: string) => encodeURI(decoded(text)).replace(/[^A-Za-z0-9]/g, '\\$&')
  return linearGroups(`^${parts.map(literal).join('(.+)')}$`).match
}
