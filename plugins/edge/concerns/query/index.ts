/**
 * Changes the query that the service gets. Other parameters keep their bytes and their order. Runs after the rules for headers,
 * whose templates refer to the query of the client.
 */
import type { FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { Either, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { edgeConcern } from '../../concern.ts'
import { checkParams, checkTemplate, routesWith } from '../../templates/check.ts'
import { uncountedFields } from '../../templates/client-fields.ts'
import { warnOfIdleRules } from '../../templates/idle-rules.ts'
import { factsOf, isIdentity, sourcesIn } from '../../templates/source.ts'
import type { Scope, Text as TextOf, TextPlace } from '../../templates/values.ts'
import { compileText, textOfField } from '../../templates/values.ts'
import { changedQuery, decoded } from './edit.ts'

const Values = (description: string) =>
  Type.Optional(
    Type.Record(Type.String(), Either({ type: 'array' }, Type.Array(Text, { minItems: 1 }), Text), {
      minProperties: 1,
      description
    })
  )
const List = (description: string) => Type.Optional(Type.Array(Text, { minItems: 1, description }))

const Query = Type.Object(
  {
    only: List('Parameters that reach the service; others are removed.'),
    remove: List('Parameters to remove.'),
    rename: Type.Optional(
      Type.Record(Type.String(), Text, {
        minProperties: 1,
        description: 'Old name: new name. Values keep their bytes.'
      })
    ),
    set: Values('Name: value, or a list of values. Replaces the parameter. Values are templates.'),
    add: Values('As `set`, but only if the parameter is absent.'),
    append: Values('As `set`, but adds to the values that the parameter has.')
  },
  {
    ...strict,
    minProperties: 1,
    description: 'Changes the query for the service. In this order: `only`, `remove`, `rename`, `set`, `add`, `append`.'
  }
)

type Options = Static<typeof Query>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    query?: Options | false
  }
}

const valued = ['set', 'add', 'append'] as const

const entriesOf = (values: Options['set']): (readonly [name: string, values: readonly string[]])[] =>
  Object.entries(values ?? {}).map(([name, value]) => [name, [value].flat()])

const text = (value: unknown): string => (typeof value === 'object' ? JSON.stringify(value) : String(value))

/** The place of a parameter's value: everything but letters, digits and `-_.!~*'()` is percent-encoded. */
const inQuery: TextPlace = {
  value: (value, isField) => {
    if (value === undefined || value === null) return undefined
    const joined = [value].flat().map(text).join(',')
    return encodeURIComponent((isField ? textOfField(joined) : joined).toWellFormed())
  },
  literal: (given) => encodeURIComponent(given.toWellFormed())
}

const compiled = (values: Options['set']): (readonly [name: string, texts: readonly TextOf[]])[] =>
  entriesOf(values).map(([name, texts]) => [name, texts.map((each) => compileText(each, inQuery))])

export default edgeConcern({
  name: 'query',
  options: orOff(Query),
  noShadow: 'it refuses no request',
  protects: false,
  ...factsOf(valued),
  aliases: { 'queryString|querystring|queryParams|queryStringToAdd': 'write query' },
  innerAliases: {
    'replace|override': 'write "set"',
    delete: 'write "remove"',
    'allow|allowed|whitelist': 'write "only"'
  },
  check,
  *checkAll(checked) {
    for (const { at, options, route } of routesWith<Options>('query', checked)) {
      yield
      for (const operation of valued) {
        for (const [name, values] of entriesOf(options[operation])) {
          for (const each of values) checkParams(pointer(at, operation, name), each, route, checked)
        }
      }
    }
  },
  explain: (options) =>
    Object.entries(options)
      .map(([operation, rules]) => `${operation} ${(Array.isArray(rules) ? rules : Object.keys(rules)).join(', ')}`)
      .join('; '),
  async plugin(fastify, { config }) {
    return (options, route) => {
      const { only, remove = [], rename = {} } = options
      const rules = {
        only: only === undefined ? null : new Set(only),
        removed: new Set(remove),
        renames: new Map(Object.entries(rename))
      }
      const [set, add, append] = [compiled(options.set), compiled(options.add), compiled(options.append)]
      const isUncounted = uncountedFields(fastify, route, config)
      const isBridged = route.config?.route?.isBridged === true
      return {
        preParsing(
          request: FastifyRequest,
          _reply: unknown,
          payload: unknown,
          done: (error: null, payload: unknown) => void
        ) {
          const scope: Scope = { request, isUncounted, response: null }
          const valuesOf = (compiled: typeof set) =>
            compiled.map(([name, texts]) => [name, texts.flatMap((each) => each(scope) ?? [])] as const)
          const { raw } = request
          const { target, query } = changedQuery(raw.url!, {
            ...rules,
            set: valuesOf(set),
            add: valuesOf(add),
            append: valuesOf(append)
          })
          if (target !== raw.url) request.clientTarget ??= raw.url!
          raw.url = target
          // Handlers of plugins and templates of composed routes read it.
          if (!isBridged) request.query = query()
          done(null, payload)
        }
      } as object
    }
  }
})

function check(options: Options, at: string, checked: Checked): void {
  const { report } = checked
  if (!report.sound(at)) return
  for (const [from, to] of Object.entries(options.rename ?? {})) {
    if (from === to) report.fault(pointer(at, 'rename', from), 'changes nothing: both names are the same', 'key')
  }
  for (const [key, names] of Object.entries({ only: options.only, remove: options.remove })) {
    for (const [index, name] of (names ?? []).entries()) {
      if (!/%[\da-f]{2}/i.test(name)) continue
      report.warn(pointer(at, key, index), `names are compared decoded: write "${decoded(name)}"`)
    }
  }
  warnOfIdleRules(options, at, { canonical: (name) => name, isStrict: true }, report)
  for (const operation of valued) {
    for (const [name, values] of entriesOf(options[operation])) {
      const isList = Array.isArray(options[operation]?.[name])
      values.forEach((each, index) => {
        const place = isList ? pointer(at, operation, name, index) : pointer(at, operation, name)
        checkTemplate(place, each, false, () => null, checked)
      })
      if (operation === 'set' || !values.flatMap(sourcesIn).some(isIdentity)) continue
      const what = `clients could send values of "${name}" themselves`
      report.fault(pointer(at, operation, name), `${what}; write it under "set", which replaces these`, 'key')
    }
  }
}
