/**
 * Templates of composed routes: text with references in braces, `/users/{params.id}`. A reference names a value of the
 * request or of an earlier call's response. There are no expressions: a template is data, and evaluating it runs no code.
 */
import { token } from '../../plugins/http-syntax.ts'
import { didYouMean } from '../nearest.ts'
import { membersOf } from './pointer.ts'

/** The value that a reference stands for. */
export type Source =
  | { readonly of: 'params' | 'query' | 'headers'; readonly name: string }
  | { readonly of: 'consumer' }
  | { readonly of: 'claims' | 'body'; readonly members: readonly string[] }
  | { readonly of: 'call'; readonly call: string; readonly take: 'status' }
  | { readonly of: 'call'; readonly call: string; readonly take: 'header'; readonly name: string }
  | { readonly of: 'call'; readonly call: string; readonly take: 'body'; readonly members: readonly string[] }

export interface Reference {
  readonly source: Source
  /** Text that replaces a missing value: `{query.page|1}`. Null without one. */
  readonly substitute: string | null
  /** The reference as it is written, without braces; for messages. */
  readonly text: string
}

/** Texts and references in their order. */
export type Template = readonly (string | Reference)[]

/** Pieces of a template: doubled braces, references, a single brace, text. */
const piece = /\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+/g

/** Parses a template. Throws an error whose message is the fault. */
export function parseTemplate(text: string): Template {
  const parts: (string | Reference)[] = []
  let literal = ''
  for (const [found] of text.matchAll(piece)) {
    if (found === '{' || found === '}') {
      throw new Error(`"${found}" has no counterpart in "${text}"; write "${found}${found}" for the character itself`)
    }
    if (!found.startsWith('{') || found === '{{') {
      literal += found === '{{' || found === '}}' ? found[0] : found
      continue
    }
    if (literal !== '') parts.push(literal)
    literal = ''
    parts.push(parseReference(found.slice(1, -1)))
  }
  if (literal !== '') parts.push(literal)
  return parts
}

const sources = ['params.', 'query.', 'headers.', 'consumer.id', 'claims', 'body', 'calls.']
const examples =
  '{params.id}, {query.page}, {headers.accept-language}, {consumer.id}, {claims/sub}, {body/id}, {calls.user/id}'

function parseReference(text: string): Reference {
  const bar = text.indexOf('|')
  const path = bar === -1 ? text : text.slice(0, bar)
  return { source: parseSource(path, text), substitute: bar === -1 ? null : text.slice(bar + 1), text }
}

function parseSource(path: string, text: string): Source {
  if (path === 'consumer.id') return { of: 'consumer' }
  const [, of, , rest = ''] = /^(params|query|headers|claims|body|calls)(\.|(?=\/|$))(.*)$/s.exec(path) ?? []
  if ((of === 'params' || of === 'query' || of === 'headers') && path[of.length] === '.' && rest !== '') {
    return { of, name: of === 'headers' ? headerName(rest) : rest }
  }
  if ((of === 'claims' || of === 'body') && path[of.length] !== '.') return { of, members: membersOf(rest) }
  const [, call, what = ''] = /^calls\.([a-z0-9-]+)(.*)$/s.exec(path) ?? []
  if (call === undefined) {
    const [word = ''] = path.split(/(?<=[./])/)
    throw new Error(`unknown reference "{${text}}"${didYouMean(word, sources) || `; possible are ${examples}`}`)
  }
  if (what === '.status') return { of: 'call', call, take: 'status' }
  if (what.startsWith('.headers.')) {
    return { of: 'call', call, take: 'header', name: headerName(what.slice('.headers.'.length)) }
  }
  if (what !== '' && !what.startsWith('/')) {
    throw new Error(
      `unknown reference "{${text}}"; of a response there are {calls.${call}/pointer}, {calls.${call}.status} and {calls.${call}.headers.NAME}`
    )
  }
  return { of: 'call', call, take: 'body', members: membersOf(what) }
}

function headerName(text: string): string {
  if (!token.test(text)) throw new Error(`"${text}" is not the name of a header`)
  return text.toLowerCase()
}

/** Returns the references of a template. */
export const referencesOf = (template: Template): Reference[] => template.filter((part) => typeof part !== 'string')

/** Returns the reference if the template consists of it alone, so that its value keeps its type. */
export function soleReference(template: Template): Reference | null {
  const [first] = template
  return template.length === 1 && typeof first === 'object' ? first : null
}
