/** Templates of composed routes: a reference names a value of the request or of an earlier call's response. */
import { token } from '../../plugins/http-syntax.ts'
import { membersOf } from '../json-pointer.ts'
import { didYouMean } from '../nearest.ts'
import type { Reference as AnyReference, Template as AnyTemplate } from '../template.ts'
import { parseTemplate as parse } from '../template.ts'

export { referencesOf, soleReference } from '../template.ts'

/** The value that a reference stands for. */
export type Source =
  | { readonly of: 'params' | 'query' | 'headers'; readonly name: string }
  | { readonly of: 'consumer' }
  | { readonly of: 'claims' | 'body'; readonly members: readonly string[] }
  | { readonly of: 'call'; readonly call: string; readonly take: 'status' }
  | { readonly of: 'call'; readonly call: string; readonly take: 'header'; readonly name: string }
  | { readonly of: 'call'; readonly call: string; readonly take: 'body'; readonly members: readonly string[] }

export type Reference = AnyReference<Source>
export type Template = AnyTemplate<Source>

/** Parses a template. Throws an error whose message is the fault. */
export const parseTemplate = (text: string): Template => parse(text, parseSource)

const sources = ['params.', 'query.', 'headers.', 'consumer.id', 'claims', 'body', 'calls.']
const examples =
  '{params.id}, {query.page}, {headers.accept-language}, {consumer.id}, {claims/sub}, {body/id}, {calls.user/id}'

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
