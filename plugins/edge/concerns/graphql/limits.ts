/** The limits of a request: of each operation, and of all operations of a batch together. */
import type { DocumentMeasure } from './document.ts'
import type { GraphqlOptions } from './options.ts'
import { Refusal } from './refusals.ts'

/** Measures of all operations of a request. */
export class Total {
  depth = 0
  tokens = 0
  aliases = 0
  rootFields = 0
  cost = 0
  introspects = false
  hasMutation = false

  add({ depth, tokens, aliases, rootFields, cost, introspects, hasMutation }: DocumentMeasure): void {
    this.depth = Math.max(this.depth, depth)
    this.tokens += tokens
    this.aliases += aliases
    this.rootFields += rootFields
    this.cost += cost
    this.introspects ||= introspects
    this.hasMutation ||= hasMutation
  }
}

/** Throws a refusal if a request is over a limit. */
export function limits(total: Total, options: GraphqlOptions): void {
  const { maxTokens, maxDepth, maxAliases, maxRootFields, maxCost, introspection } = options
  if (total.introspects && !introspection) {
    throw new Refusal('graphql_introspection', 'Introspection is disabled')
  }
  if (total.tokens > maxTokens) throw new Refusal('graphql_tokens', `The request has more than ${maxTokens} tokens`)
  if (isOver(total.depth, maxDepth)) {
    throw new Refusal('graphql_depth', `The operation has ${total.depth} levels of fields; the limit is ${maxDepth}`)
  }
  if (isOver(total.aliases, maxAliases)) {
    throw new Refusal('graphql_aliases', `The operation has more than ${maxAliases} aliases`)
  }
  if (isOver(total.rootFields, maxRootFields)) {
    throw new Refusal(
      'graphql_root_fields',
      `The operation has more than ${maxRootFields} fields at its uppermost level`
    )
  }
  if (isOver(total.cost, maxCost)) {
    throw new Refusal('graphql_cost', `The operation has a cost of ${total.cost}; the limit is ${maxCost}`)
  }
}

/** Returns whether a measure is over its limit. NaN is: it stands for a cost that is too large to compute. */
const isOver = (value: number, limit: number | false) => limit !== false && !(value <= limit)
