/**
 * References of the templates in `edge.headers`, `edge.query` and `edge.cookies`. The syntax is that of composed routes: braces
 * without `$`, because `${NAME}` is an environment variable, which the loader replaces before.
 */
import { membersOf } from '../../../config/json-pointer.ts'
import { didYouMean } from '../../../config/nearest.ts'
import type { Template as AnyTemplate } from '../../../config/template.ts'
import { parseTemplate as parse, referencesOf } from '../../../config/template.ts'
import { token } from '../../http-syntax.ts'

const properties = ['method', 'path', 'host', 'scheme', 'ip', 'id'] as const
const ofConsumer = ['id', 'groups', 'tags'] as const

/** The value that a reference stands for. */
export type Source =
  | { readonly of: 'params' | 'query' | 'headers' | 'cookies'; readonly name: string }
  | { readonly of: 'request'; readonly property: (typeof properties)[number] }
  | { readonly of: 'consumer'; readonly property: (typeof ofConsumer)[number] }
  | { readonly of: 'claims'; readonly members: readonly string[] }
  | { readonly of: 'response'; readonly header: string | null }

export type Template = AnyTemplate<Source>

const words = [
  ...properties.map((each) => `request.${each}`),
  ...ofConsumer.map((each) => `consumer.${each}`),
  'response.status'
]
const beginnings = ['params.', 'query.', 'headers.', 'cookies.', 'claims/', 'response.headers.']
const examples = '{headers.user-agent}, {query.page}, {params.id}, {request.ip}, {consumer.id}, {claims/sub}'

/** Parses a template. Throws an error whose message is the fault. */
export const parseTemplate = (text: string): Template => parse(text, parseSource)

/**
 * Parses a reference without its substitute; `text` is the whole of it. Throws an error whose message is the fault. `others`:
 * references that the place has besides these, for advice.
 */
export function parseSource(path: string, text: string, others: readonly string[] = []): Source {
  const [, of, rest = ''] = /^(params|query|headers|cookies)\.(.+)$/s.exec(path) ?? []
  if (of === 'headers' || of === 'cookies') return { of, name: nameOf(rest, of === 'headers' ? 'header' : 'cookie') }
  if (of === 'params' || of === 'query') return { of, name: rest }
  if (/^claims(\/|$)/.test(path)) return { of: 'claims', members: membersOf(path.slice('claims'.length)) }
  if (path === 'response.status') return { of: 'response', header: null }
  const prefix = 'response.headers.'
  if (path.startsWith(prefix)) return { of: 'response', header: nameOf(path.slice(prefix.length), 'header') }
  for (const property of properties) if (path === `request.${property}`) return { of: 'request', property }
  for (const property of ofConsumer) if (path === `consumer.${property}`) return { of: 'consumer', property }
  throw new Error(`unknown reference "{${text}}"${adviceFor(path, others)}`)
}

function adviceFor(path: string, others: readonly string[]): string {
  if (path.startsWith('claims.')) return `; write {claims/${path.slice('claims.'.length).replaceAll('.', '/')}}`
  const listed = [...others.slice(0, 3).map((name) => `{${name}}`), examples].join(', ')
  const [beginning = ''] = path.split(/(?<=[./])/)
  return didYouMean(path, [...others, ...words]) || didYouMean(beginning, beginnings) || `; possible are ${listed}`
}

function nameOf(text: string, what: 'header' | 'cookie'): string {
  // A name such as `constructor` would find a member of the object that holds the headers.
  if (!token.test(text) || text.toLowerCase() in {}) throw new Error(`"${text}" is not the name of a ${what}`)
  return what === 'header' ? text.toLowerCase() : text
}

/** Returns the sources of a template; none if it has a fault. */
export function sourcesIn(text: string): Source[] {
  try {
    return referencesOf(parseTemplate(text)).map(({ source }) => source)
  } catch {
    return []
  }
}

/** Returns whether a template needs this fact: it refers to it without a text for a missing value. */
export function needsFact(text: string, fact: 'consumer' | 'claims'): boolean {
  try {
    return referencesOf(parseTemplate(text)).some(({ source, substitute }) => source.of === fact && substitute === null)
  } catch {
    return false
  }
}

/** Returns whether a source says who the caller is, so that services trust it. */
export const isIdentity = ({ of }: Source): boolean => of === 'consumer' || of === 'claims'

/** Returns whether a client chooses the value of a source. */
export const isOfClient = (source: Source): boolean =>
  source.of === 'request' ? source.property === 'path' || source.property === 'host' : byClients.has(source.of)

const byClients: ReadonlySet<string> = new Set(['params', 'query', 'headers', 'cookies'])

/** Returns whether rules have a template that needs a fact. They may be malformed: facts are checked beside the schema. */
export const usesFact =
  (operations: readonly string[], fact: 'consumer' | 'claims') =>
  (rules: unknown): boolean =>
    operations.some((operation) => textsIn(Reflect.get(Object(rules), operation)).some((text) => needsFact(text, fact)))

const textsIn = (values: unknown): string[] =>
  Object.values(Object(values))
    .flat()
    .filter((each) => typeof each === 'string')

/** Returns the facts that templates in these operations of a concern need. */
export const factsOf = (operations: readonly string[]) => ({
  needs: operations.flatMap((option) =>
    (['claims', 'consumer'] as const).map((fact) => ({
      fact,
      option,
      value: (values: unknown) => textsIn(values).some((text) => needsFact(text, fact))
    }))
  )
})
