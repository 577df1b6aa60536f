// The measures of random GraphQL documents, against those of the documents with all fragments written out; and JSON with
// repeated keys.
import { randomInt } from 'node:crypto'
import type { FieldNode, FragmentDefinitionNode, SelectionSetNode } from 'graphql'
import { parse } from 'graphql'
import t from 'tap'
import { defaultsOf } from '../../../config/schema/kit.ts'
import { Documents } from '../../../plugins/edge/concerns/graphql/document.ts'
import { Graphql } from '../../../plugins/edge/concerns/graphql/options.ts'
import { parseStrictJson } from '../../../plugins/edge/strict-json.ts'
import { Random } from '../../fuzz/random.ts'

const options = { ...defaultsOf(Graphql), fields: { b: { cost: 3, listSize: 4 }, c: { cost: 0, listSize: 1 } } }
const names = ['a', 'b', 'c', '__schema']

const below = (random: Random, limit: number) => random.int(0, limit - 1)

/** Returns a document without cycles: a fragment spreads only later ones. */
function documentOf(random: Random): string {
  const fragments = below(random, 6)
  const selections = (level: number, from: number): string => {
    const count = 1 + below(random, 3)
    const each = Array.from({ length: count }, () => {
      const kind = below(random, 6)
      if (kind === 0 && from < fragments) return `...F${from + below(random, fragments - from)}`
      if (kind === 1 && level > 0) return `... { ${selections(level - 1, from)} }`
      const alias = below(random, 4) === 0 ? 'x: ' : ''
      const list = below(random, 4) === 0 ? `(first: ${below(random, 2) === 0 ? below(random, 9) : '$n'})` : ''
      const inner = level > 0 && below(random, 2) === 0 ? ` { ${selections(level - 1, from)} }` : ''
      return alias + names[below(random, names.length)]! + list + inner
    })
    return each.join(' ')
  }
  const definitions = Array.from({ length: fragments }, (_, i) => `fragment F${i} on T { ${selections(2, i + 1)} }`)
  const operations = Array.from(
    { length: 1 + below(random, 2) },
    (_, i) => `query Q${i}($n: Int = 6) { ${selections(3, 0)} }`
  )
  return [...definitions, ...operations].join(' ')
}

/** The same measures, with each fragment measured wherever it is spread. */
function naive(text: string, n: number | null) {
  const { definitions } = parse(text)
  const fragmentOf = (name: string) =>
    definitions.find((each) => each.kind === 'FragmentDefinition' && each.name.value === name) as FragmentDefinitionNode
  const fieldsIn = ({ selections }: SelectionSetNode): FieldNode[] =>
    selections.flatMap((each) => {
      if (each.kind === 'Field') return [each]
      return fieldsIn(each.kind === 'InlineFragment' ? each.selectionSet : fragmentOf(each.name.value).selectionSet)
    })
  interface Measures {
    depth: number
    aliases: number
    rootFields: number
    cost: number
    introspects: boolean
  }
  const measure = (set: SelectionSetNode | undefined): Measures => {
    const total: Measures = { depth: 0, aliases: 0, rootFields: 0, cost: 0, introspects: false }
    for (const field of set === undefined ? [] : fieldsIn(set)) {
      const inner = measure(field.selectionSet)
      const value = field.arguments?.[0]?.value
      const first = value?.kind === 'IntValue' ? Number(value.value) : value === undefined ? 0 : (n ?? 6)
      const { cost = 1, listSize = 1 } = new Map(Object.entries(options.fields)).get(field.name.value) ?? {}
      total.depth = Math.max(total.depth, 1 + inner.depth)
      total.aliases += inner.aliases + (field.alias === undefined ? 0 : 1)
      total.rootFields += 1
      total.cost += (first > 0 ? first : listSize) * (cost + inner.cost)
      total.introspects ||= inner.introspects || field.name.value === '__schema'
    }
    return total
  }
  const all = definitions.flatMap((each) => (each.kind === 'OperationDefinition' ? [measure(each.selectionSet)] : []))
  const largest = (of: (measures: Measures) => number) => Math.max(...all.map(of))
  return {
    depth: largest(({ depth }) => depth),
    aliases: largest(({ aliases }) => aliases),
    rootFields: largest(({ rootFields }) => rootFields),
    cost: largest(({ cost }) => cost),
    introspects: all.some(({ introspects }) => introspects)
  }
}

for (const seed of ['1', `${randomInt(2 ** 31)}`]) {
  t.test(`seed ${seed}: measures are those of the document without fragments`, async (t) => {
    const documents = new Documents(options)
    const wrong: string[] = []
    for (let i = 0; i < 500; i++) {
      const random = new Random(seed, i)
      const text = documentOf(random)
      const n = below(random, 2) === 0 ? null : 1 + below(random, 9)
      // Twice: the second time, the measure may be a kept one.
      for (let time = 0; time < 2; time++) {
        const { tokens: _, hasMutation: __, ...measured } = documents.measure(text, n === null ? null : { n })
        if (JSON.stringify(measured) !== JSON.stringify(naive(text, n))) wrong.push(text)
      }
    }
    t.strictSame(wrong, [])
  })

  t.test(`seed ${seed}: repeated keys of JSON are found at any place`, async (t) => {
    const wrong: string[] = []
    for (let i = 0; i < 500; i++) {
      const random = new Random(seed, i)
      let repeats = false
      const value = (level: number): string => {
        const kind = below(random, level > 0 ? 5 : 3)
        if (kind === 0) return JSON.stringify(['a:b', '"', '\\', '{":', 'é'][below(random, 5)])
        if (kind === 1) return ['1', '-2.5e3', 'true', 'null'][below(random, 4)]!
        if (kind === 2) return ['{ }', '[]'][below(random, 2)]!
        const items = Array.from({ length: 1 + below(random, 3) }, () => value(level - 1))
        if (kind === 3) return `[${items.join(' , ')}]`
        const keys = items.map(() => ['a', ':', '"', '__proto__', 'b'][below(random, 5)]!)
        repeats ||= new Set(keys).size < keys.length
        return `{${items.map((item, at) => `${JSON.stringify(keys[at])} : ${item}`).join(',')}}`
      }
      const text = value(4)
      let isRefused = false
      try {
        parseStrictJson(text)
      } catch {
        isRefused = true
      }
      if (isRefused !== repeats) wrong.push(text)
    }
    t.strictSame(wrong, [])
  })
}
