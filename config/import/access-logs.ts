/** Access logs of other gateways, as `edge.accessLog`. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Returns the destination of a log; stdout needs none. */
const fileOf = (path: string | undefined): Settings =>
  path === undefined || path === '' || /^\/dev\/(stdout|fd\/1)$/.test(path) ? {} : { file: path }

/** Variables of nginx, which APISIX's formats have. */
const variables: Readonly<Record<string, string>> = {
  remote_addr: '{ip}',
  realip_remote_addr: '{ip}',
  host: '{request.host}',
  http_host: '{request.host}',
  scheme: '{request.scheme}',
  request: '{method} {target} {protocol}',
  request_method: '{method}',
  request_uri: '{target}',
  uri: '{path}',
  server_protocol: '{protocol}',
  status: '{status}',
  body_bytes_sent: '{bytesSent}',
  bytes_sent: '{bytesSent}',
  request_id: '{requestId}',
  time_iso8601: '{time}',
  time_local: '{time.common}',
  msec: '{time.unix}',
  http_referer: '{referer}',
  http_user_agent: '{headers.user-agent}',
  upstream_addr: '{instance}',
  consumer_name: '{consumer}',
  remote_user: '{consumer}',
  route_id: '{route}',
  route_name: '{route}',
  service_id: '{service}',
  service_name: '{service}'
}

/** Returns a format of nginx as a template; null if it has a variable without an equivalent. */
export function templateOf(format: string): string | null {
  let isWhole = true
  const text = format
    .replace(/[{}]/g, '$&$&')
    .replace(/\$\{\{(\w+)\}\}|\$(\w+)/g, (_, braced?: string, plain?: string) => {
      const name = (braced ?? plain)!
      const known = member(variables, name)
      if (known !== undefined) return known
      const [, kind, rest = ''] = /^(http|sent_http|arg|cookie)_(\w+)$/.exec(name) ?? []
      if (kind === 'http') return `{headers.${rest.replaceAll('_', '-')}}`
      if (kind === 'sent_http') return `{response.headers.${rest.replaceAll('_', '-')}}`
      if (kind === 'arg') return `{query.${rest}}`
      if (kind === 'cookie') return `{cookies.${rest}}`
      isWhole = false
      return ''
    })
  return isWhole ? text : null
}

/** APISIX: `file-logger`. */
export function apisixFileLogger(config: Foreign, draft: Draft, edge: Settings, about: Settings | null): void {
  const given = config.map('log_format')
  const lost: string[] = []
  const format: Settings = {}
  for (const name of given?.keys ?? []) {
    const template = templateOf(given!.text(name) ?? '')
    const isName = /^[A-Za-z@][\w.@-]{0,63}$/.test(name)
    if (template === null || !isName) lost.push(name)
    else format[name] = template
  }
  if (lost.length > 0) draft.note(about, `${config.where}.log_format: not converted: ${lost.join(', ')}`)
  const hasFormat = Object.keys(format).length > 0
  if (!hasFormat) draft.note(about, `${config.where}: the lines have other fields than those of APISIX`)
  if (config.flag('include_req_body') === true || config.flag('include_resp_body') === true) {
    draft.note(about, `${config.where}: no bodies are logged`)
  }
  if (config.has('match')) draft.note(about, `${config.where}.match: see edge.accessLog.filters`)
  config.skip('match', 'include_req_body_expr', 'include_resp_body_expr', 'max_req_body_bytes', 'max_resp_body_bytes')
  edge.accessLog = logOf({ ...fileOf(config.text('path')), ...(hasFormat && { format }) })
}

/** Kong: `file-log`. */
export function kongFileLog(config: Foreign, draft: Draft, edge: Settings, about: Settings | null): void {
  draft.note(about, `${config.where}: the lines have other fields than those of Kong`)
  if (config.has('custom_fields_by_lua')) draft.note(about, `${config.where}.custom_fields_by_lua: write a format`)
  config.skip('reopen', 'custom_fields_by_lua')
  edge.accessLog = logOf(fileOf(config.text('path')))
}

const logOf = (options: Settings): Settings | true => (Object.keys(options).length === 0 ? true : options)

/** Fields of Traefik's lines, with those of the lines here. */
const ofTraefik: Readonly<Record<string, string>> = {
  ClientAddr: 'ip',
  ClientHost: 'ip',
  ClientUsername: 'consumer',
  RequestMethod: 'method',
  RequestPath: 'path',
  RouterName: 'route',
  ServiceName: 'service',
  ServiceURL: 'instance',
  ServiceAddr: 'instance',
  Duration: 'durationMs',
  DownstreamStatus: 'status',
  DownstreamContentSize: 'bytesSent',
  RetryAttempts: 'attempts',
  TraceId: 'traceId',
  SpanId: 'spanId'
}

/** Traefik: `accessLog` of the static configuration. */
export function traefikAccessLog(config: Foreign, draft: Draft): void {
  const isJson = config.text('format') === 'json'
  const filters = config.map('filters')
  const statusCodes = filters?.texts('statusCodes').flatMap((each) => each.split(',')) ?? []
  const minDuration = filters?.text('minDuration')
  const selected: Settings = {
    ...(statusCodes.length > 0 && { statusCodes }),
    ...(minDuration !== undefined && { minDuration: /^\d+$/.test(minDuration) ? `${minDuration}s` : minDuration }),
    ...(filters?.flag('retryAttempts') === true && { retryAttempts: true })
  }
  const fields = config.map('fields')
  const names = fields?.map('names')
  const headers = fields?.map('headers')
  const kept = headers?.map('names')
  const dropped = (names?.keys ?? []).filter((name) => names!.text(name) === 'drop')
  const omit = [...new Set(dropped.flatMap((name) => member(ofTraefik, name) ?? []))]
  const requestHeaders = (kept?.keys ?? []).filter((name) => kept!.text(name) === 'keep')
  const lost = dropped.filter((name) => member(ofTraefik, name) === undefined)
  if (lost.length > 0) draft.note(null, `${fields!.where}.names: the lines have no ${lost.join(', ')}`)
  for (const each of [fields, headers]) {
    const mode = each?.text('defaultMode')
    if (mode !== undefined && mode !== (each === fields ? 'keep' : 'drop')) {
      draft.note(null, `${each!.where}.defaultMode ${mode}: name fields in omit, and headers in requestHeaders`)
    }
  }
  if (config.has('otlp')) draft.note(null, `${config.where}.otlp: lines go to stdout or a file`)
  config.skip('bufferingSize', 'addInternals', 'otlp')
  draft.edge.accessLog = logOf({
    ...fileOf(config.text('filePath')),
    ...(!isJson && { format: 'combined' }),
    ...(isJson && omit.length > 0 && { omit }),
    ...(isJson && requestHeaders.length > 0 && { requestHeaders }),
    ...(Object.keys(selected).length > 0 && { filters: selected })
  })
}
