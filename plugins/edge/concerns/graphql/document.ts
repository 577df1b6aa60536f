/**
 * Measures a GraphQL document without its schema. The work is linear in the size of the document: each fragment is measured
 * once, however often it is spread. Recursion is bounded: brackets are counted before the recursive parser runs, and
 * fragments are measured one by one, those that others spread first.
 */
import type * as GraphQL from 'graphql'
import { onFirstUse } from '../../../on-first-use.ts'
import { ByteLru } from '../../byte-lru.ts'
import type { JsonObject } from '../../strict-json.ts'
import type { GraphqlOptions } from './options.ts'
import { Refusal } from './refusals.ts'

/** The part of the package that reads documents: the whole package would take more memory. */
const graphql = onFirstUse<Pick<typeof GraphQL, 'Lexer' | 'Source' | 'TokenKind' | 'parse'>>('graphql/language')

/** Deepest nesting of brackets of all kinds. The parser needs about 1 KB of stack per level. */
const maxBrackets = 200
/** Bytes of documents whose measures are kept, per route. */
const keptBytes = 1024 * 1024

/** Measures of a selection set, with its fragments in place of their spreads. */
interface Measure {
  /** Levels of fields. */
  readonly depth: number
  readonly aliases: number
  /** Fields of the uppermost level. */
  readonly rootFields: number
  readonly cost: number
  /** True if it selects `__schema` or `__type`. */
  readonly introspects: boolean
}

/** Measures of a document: of its operations, the largest. */
export interface DocumentMeasure extends Measure {
  readonly tokens: number
  readonly hasMutation: boolean
}

const nothing: Measure = { depth: 0, aliases: 0, rootFields: 0, cost: 0, introspects: false }

/** Measures the documents of one route. */
export class Documents {
  readonly #options: GraphqlOptions
  readonly #lists: ReadonlySet<string>
  readonly #fields: ReadonlyMap<string, { readonly cost: number; readonly listSize: number }>
  /** Measures that do not depend on variables. */
  readonly #known = new ByteLru<DocumentMeasure>(keptBytes)

  constructor(options: GraphqlOptions) {
    this.#options = options
    this.#lists = new Set(options.listArguments)
    this.#fields = new Map(Object.entries(options.fields ?? {}))
    // A package that cannot be loaded is a fault of the configuration, not of a request.
    graphql()
  }

  /** Throws a refusal if the document cannot be parsed, or has more tokens or brackets than allowed. */
  measure(text: string, variables: JsonObject | null): DocumentMeasure {
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const tokens = scan(text, this.#options.maxTokens)
    const reading = new Reading(parse(text, this.#options.maxTokens), variables, this.#lists, this.#fields)
    const measure = { ...reading.measure(), tokens }
    if (!reading.usesVariables) this.#known.set(text, measure, 2 * text.length)
    return measure
  }
}

/** Longest text of a syntax error, which repeats a name of the document. */
const longestMessage = 200

function syntaxError(error: unknown): Refusal {
  const text = error instanceof Error ? error.message : 'Syntax Error'
  return new Refusal('graphql_syntax', text.length > longestMessage ? `${text.slice(0, longestMessage)}…` : text)
}

/** Returns the number of tokens. Throws a refusal before the parser has to handle too many of them. */
function scan(text: string, maxTokens: number): number {
  const { Lexer, Source, TokenKind } = graphql()
  const opening = new Set<string>([TokenKind.BRACE_L, TokenKind.BRACKET_L, TokenKind.PAREN_L])
  const closing = new Set<string>([TokenKind.BRACE_R, TokenKind.BRACKET_R, TokenKind.PAREN_R])
  const lexer = new Lexer(new Source(text))
  let tokens = 0
  let open = 0
  for (;;) {
    let kind: string
    try {
      kind = lexer.advance().kind
    } catch (error) {
      throw syntaxError(error)
    }
    if (kind === TokenKind.EOF) return tokens
    if (++tokens > maxTokens) throw new Refusal('graphql_tokens', `The document has more than ${maxTokens} tokens`)
    if (opening.has(kind)) open++
    else if (closing.has(kind)) open--
    if (open > maxBrackets) {
      throw new Refusal('graphql_nesting', `The document has brackets nested deeper than ${maxBrackets} levels`)
    }
  }
}

function parse(text: string, maxTokens: number): GraphQL.DocumentNode {
  try {
    return graphql().parse(text, { maxTokens, noLocation: true })
  } catch (error) {
    throw syntaxError(error)
  }
}

/** One document that is being measured. */
class Reading {
  /** True if the cost depends on values of variables. */
  usesVariables = false
  readonly #operations: GraphQL.OperationDefinitionNode[] = []
  readonly #fragments = new Map<string, GraphQL.FragmentDefinitionNode>()
  readonly #measured = new Map<string, Measure>()
  readonly #defaults = new Map<string, number>()
  readonly #variables: JsonObject | null
  readonly #lists: ReadonlySet<string>
  readonly #fields: ReadonlyMap<string, { readonly cost: number; readonly listSize: number }>

  constructor(
    { definitions }: GraphQL.DocumentNode,
    variables: JsonObject | null,
    lists: ReadonlySet<string>,
    fields: ReadonlyMap<string, { readonly cost: number; readonly listSize: number }>
  ) {
    this.#variables = variables
    this.#lists = lists
    this.#fields = fields
    for (const definition of definitions) {
      if (definition.kind === 'OperationDefinition') {
        this.#operations.push(definition)
        for (const { variable, defaultValue } of definition.variableDefinitions ?? []) {
          const value = defaultValue === undefined ? Number.NaN : this.#literal(defaultValue)
          const { value: name } = variable.name
          // The largest default of all operations, so that fragments need to be measured only once.
          if (!Number.isNaN(value)) this.#defaults.set(name, Math.max(value, this.#defaults.get(name) ?? 0))
        }
      } else if (definition.kind === 'FragmentDefinition') {
        const { value: name } = definition.name
        if (this.#fragments.has(name))
          throw new Refusal('graphql_fragments', 'The document has two fragments of the same name')
        this.#fragments.set(name, definition)
      } else
        throw new Refusal('graphql_syntax', 'The document defines types: only operations and fragments are allowed')
    }
    if (this.#operations.length === 0) throw new Refusal('graphql_syntax', 'The document has no operation')
  }

  measure(): Measure & { readonly hasMutation: boolean } {
    this.#measureFragments()
    const measures = this.#operations.map(({ selectionSet }) => this.#measure(selectionSet))
    const largest = (of: (measure: Measure) => number) => measures.reduce((most, each) => Math.max(most, of(each)), 0)
    return {
      depth: largest(({ depth }) => depth),
      aliases: largest(({ aliases }) => aliases),
      rootFields: largest(({ rootFields }) => rootFields),
      // Not a number, of infinity times 0, stays so: no limit admits it.
      cost: largest(({ cost }) => cost),
      introspects: measures.some(({ introspects }) => introspects),
      hasMutation: this.#operations.some(({ operation }) => operation === 'mutation')
    }
  }

  /** Measures each fragment after those that it spreads. Throws a refusal for a cycle. */
  #measureFragments(): void {
    const begun = new Set<string>()
    for (const first of this.#fragments.keys()) {
      const stack = [first]
      for (let name = stack.at(-1); name !== undefined; name = stack.at(-1)) {
        const fragment = this.#fragments.get(name)
        if (fragment === undefined || this.#measured.has(name)) {
          stack.pop()
          continue
        }
        if (begun.has(name)) {
          this.#measured.set(name, this.#measure(fragment.selectionSet))
          stack.pop()
          continue
        }
        begun.add(name)
        for (const spread of spreadsIn(fragment.selectionSet)) {
          if (this.#measured.has(spread)) continue
          if (begun.has(spread)) throw new Refusal('graphql_fragments', 'The fragments of the document form a cycle')
          stack.push(spread)
        }
      }
    }
  }

  #measure({ selections }: GraphQL.SelectionSetNode): Measure {
    let { depth, aliases, rootFields, cost, introspects } = nothing
    for (const selection of selections) {
      const inner = this.#inner(selection)
      aliases += inner.aliases
      introspects ||= inner.introspects
      if (selection.kind === 'Field') {
        const { value: name } = selection.name
        depth = Math.max(depth, inner.depth + 1)
        rootFields += 1
        if (selection.alias !== undefined) aliases += 1
        if (name === '__schema' || name === '__type') introspects = true
        cost += this.#size(selection) * ((this.#fields.get(name)?.cost ?? 1) + inner.cost)
      } else {
        depth = Math.max(depth, inner.depth)
        rootFields += inner.rootFields
        cost += inner.cost
      }
    }
    return { depth, aliases, rootFields, cost, introspects }
  }

  #inner(selection: GraphQL.SelectionNode): Measure {
    if (selection.kind !== 'FragmentSpread') {
      return selection.selectionSet === undefined ? nothing : this.#measure(selection.selectionSet)
    }
    // A fragment that is missing: the service refuses the document.
    return this.#measured.get(selection.name.value) ?? nothing
  }

  /** Returns the number of items that a field may return: the largest list argument, else the configured size of its list. */
  #size({ name, arguments: given }: GraphQL.FieldNode): number {
    let size = 0
    for (const argument of given ?? []) {
      if (!this.#lists.has(argument.name.value)) continue
      const value = this.#literal(argument.value)
      if (value > size) size = value
    }
    return size > 0 ? size : (this.#fields.get(name.value)?.listSize ?? 1)
  }

  /** Returns the number that a value stands for; NaN for none. */
  #literal(node: GraphQL.ValueNode): number {
    if (node.kind === 'Variable') {
      this.usesVariables = true
      const { value: name } = node.name
      const variables = this.#variables
      const isGiven = variables !== null && Object.hasOwn(variables, name)
      return isGiven ? numberOf(variables[name]) : (this.#defaults.get(name) ?? Number.NaN)
    }
    // Some services take a number in quotes.
    return node.kind === 'IntValue' || node.kind === 'FloatValue' || node.kind === 'StringValue'
      ? Number(node.value)
      : Number.NaN
  }
}

/** Returns NaN for values other than numbers and strings: an object of a client may have a `valueOf` that is no function. */
const numberOf = (value: unknown) =>
  typeof value === 'number' || typeof value === 'string' ? Number(value) : Number.NaN

/** Returns the names of the fragments that a selection set spreads. */
function spreadsIn({ selections }: GraphQL.SelectionSetNode, into = new Set<string>()): Set<string> {
  for (const selection of selections) {
    if (selection.kind === 'FragmentSpread') into.add(selection.name.value)
    else if (selection.selectionSet !== undefined) spreadsIn(selection.selectionSet, into)
  }
  return into
}
