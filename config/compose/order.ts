/** The references of calls, and the order that follows from them. */
import { pointer } from '../faults.ts'
import type { CallConfig, ComposeConfig } from '../schema/compose.ts'
import type { Reference, Template } from './template.ts'
import { parseTemplate, referencesOf } from './template.ts'

/** A text of the configuration that is a template, and its place relative to the call. */
export interface TemplateText {
  readonly at: string
  readonly text: string
  readonly use: 'path' | 'query' | 'header' | 'body'
}

/** Most levels of mappings and lists within the body of a call. */
const deepestBody = 32

/** Returns the templates of a call. Throws an error whose message is the fault if its body is too deep. */
export function templatesOf({ path, query = {}, headers = {}, body }: CallConfig): TemplateText[] {
  return [
    { at: '/path', text: path, use: 'path' },
    ...textsOf(query, '/query', 'query'),
    ...textsOf(headers, '/headers', 'header'),
    ...bodyTexts(body, '/body', 0)
  ]
}

/** Returns the texts of a mapping whose values are templates. */
export function textsOf(
  values: Readonly<Record<string, unknown>>,
  at: string,
  use: 'query' | 'header'
): TemplateText[] {
  return Object.entries(values).map(([name, value]) => ({ at: pointer(at, name), text: String(value), use }))
}

function bodyTexts(value: unknown, at: string, depth: number): TemplateText[] {
  if (typeof value === 'string') return [{ at, text: value, use: 'body' }]
  if (typeof value !== 'object' || value === null) return []
  if (depth >= deepestBody) throw new Error(`the body of a call has more than ${deepestBody} levels`)
  return Object.entries(value).flatMap(([key, inner]) => bodyTexts(inner, pointer(at, key), depth + 1))
}

/** Returns the names of the calls to whose responses templates refer. */
function callsIn(templates: readonly Template[]): string[] {
  const names = templates
    .flatMap(referencesOf)
    .flatMap(({ source }: Reference) => (source.of === 'call' ? source.call : []))
  return [...new Set(names)]
}

/** Returns the names of the calls for whose responses a call waits. */
function dependenciesOf(call: CallConfig): string[] {
  return callsIn(templatesOf(call).map(({ text }) => parseTemplate(text)))
}

/** Returns the references of all templates of a route. Throws an error whose message is the fault of one of them. */
export function referencesIn({ calls, response }: Pick<ComposeConfig, 'calls' | 'response'>): Reference[] {
  const texts = [...Object.values(calls).flatMap(templatesOf), ...textsOf(response.headers ?? {}, '', 'header')]
  return texts.flatMap(({ text }) => referencesOf(parseTemplate(text)))
}

export interface OrderedCall {
  readonly name: string
  /** Names of the calls for which it waits. */
  readonly after: readonly string[]
}

/** Returns the calls in an order in which each follows those that it waits for; a cycle is returned instead. */
export function ordered({ calls }: Pick<ComposeConfig, 'calls'>): { order: OrderedCall[] } | { cycle: string[] } {
  const dependencies = new Map(Object.entries(calls).map(([name, call]) => [name, dependenciesOf(call)]))
  const order: OrderedCall[] = []
  const done = new Set<string>()
  const path: string[] = []
  const visit = (name: string): string[] | null => {
    if (done.has(name)) return null
    if (path.includes(name)) return [...path.slice(path.indexOf(name)), name]
    const after = dependencies.get(name)
    if (after === undefined) return null
    path.push(name)
    for (const other of after) {
      const cycle = visit(other)
      if (cycle !== null) return cycle
    }
    path.pop()
    done.add(name)
    order.push({ name, after })
    return null
  }
  for (const name of dependencies.keys()) {
    const cycle = visit(name)
    if (cycle !== null) return { cycle }
  }
  return { order }
}
