/** Texts with variables of other gateways, as templates of `edge.headers` and `edge.query`. */
import { member } from './foreign.ts'

/** A variable of the configuration's environment, which stays as it is. */
const environment = /\$\{[A-Z_][A-Z0-9_]*(?::-[^{}]*)?\}/

/** Returns a text as a template without references: braces are written twice. */
export const literal = (text: string): string =>
  text.replace(new RegExp(`${environment.source}|[{}]`, 'g'), (found) => (found.length === 1 ? found + found : found))

/** Converts a value into a template. Null if it has a variable without a counterpart. */
export type ToTemplate = (text: string) => string | null

const nginx: Readonly<Record<string, string>> = {
  remote_addr: '{request.ip}',
  host: '{request.host}',
  http_host: '{request.host}',
  scheme: '{request.scheme}',
  request_method: '{request.method}',
  uri: '{request.path}',
  request_id: '{request.id}'
}

const responses: Readonly<Record<string, string>> = {
  status: '{response.status}',
  upstream_status: '{response.status}'
}

const dashed = (name: string): string => name.toLowerCase().replaceAll('_', '-')

/** Variables of nginx, which APISIX's values have. */
export const nginxTemplate =
  (direction: 'request' | 'response'): ToTemplate =>
  (text) => {
    let isKnown = true
    const referenceOf = (name: string): string | undefined => {
      const isResponse = direction === 'response'
      const [, kind, rest = ''] = /^(http|upstream_http|sent_http|arg|cookie)_(\w+)$/.exec(name) ?? []
      const known = member(nginx, name) ?? (isResponse ? member(responses, name) : undefined)
      if (known !== undefined) return known
      if (kind === 'http') return `{headers.${dashed(rest)}}`
      if (kind === 'arg') return `{query.${rest}}`
      if (kind === 'cookie') return `{cookies.${rest}}`
      return isResponse && kind !== undefined ? `{response.headers.${dashed(rest)}}` : undefined
    }
    const pattern = new RegExp(`${environment.source}|\\$\\{(\\w+)\\}|\\$(\\w+)|[{}]`, 'g')
    const template = text.replace(pattern, (found, braced?: string, plain?: string) => {
      if (found.length === 1) return found + found
      const name = braced ?? plain
      if (name === undefined) return found
      const reference = referenceOf(name)
      isKnown &&= reference !== undefined
      return reference ?? ''
    })
    return isKnown ? template : null
  }

/** Values of Kong's request-transformer. `params` are the parameters of the route's paths. */
export const kongTemplate =
  (params: readonly string[]): ToTemplate =>
  (text) => {
    let isKnown = true
    const pattern = new RegExp(`${environment.source}|\\$\\(([^()]*)\\)|[{}]|\\$\\(`, 'g')
    const template = text.replace(pattern, (found, expression?: string) => {
      if (found.length === 1) return found + found
      if (found !== '$(' && expression === undefined) return found
      const reference = kongReference((expression ?? '').trim(), params)
      isKnown &&= reference !== undefined
      return reference ?? ''
    })
    return isKnown ? template : null
  }

function kongReference(expression: string, params: readonly string[]): string | undefined {
  const [, of, dotted, quoted, index] =
    /^(headers|query_params|uri_captures)(?:\.([\w-]+)|\[["']([\w-]+)["']\]|\[(\d+)\])$/.exec(expression) ?? []
  // Parts of a pattern that are no groups of Kong's expression have no number.
  const groups = params.filter((each) => !/^any\d+$/.test(each))
  const name =
    dotted ?? quoted ?? (of === 'uri_captures' && index !== undefined ? groups[Number(index) - 1] : undefined)
  if (name === undefined) return undefined
  if (of === 'headers') return `{headers.${dashed(name)}}`
  if (of === 'query_params') return `{query.${name}}`
  return params.includes(name) ? `{params.${name}}` : undefined
}
