// The tables of config/README.md, made from the schema. As a command it writes them: `npm run docs`.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loader } from '../../plugins/config.ts'

export const readme = join(import.meta.dirname, '../../config/README.md')
const begin = '<!-- reference: written by `npm run docs` -->'
const end = '<!-- end of the reference -->'

/** What of a JSON Schema the reference tells. */
interface Shape {
  type?: string
  const?: unknown
  enum?: unknown[]
  unit?: string
  expected?: string
  description?: string
  default?: unknown
  properties?: Record<string, Shape>
  required?: string[]
  patternProperties?: Record<string, Shape>
  additionalProperties?: boolean | Shape
  items?: Shape
  then?: Shape
  else?: Shape
  format?: string
}

interface Row {
  path: string
  shape: Shape
  required: boolean
}

/** What the schema has no words for. */
const notes: Readonly<Record<string, string>> = {
  listen: 'The edge: where clients come in. One listener, or a list of several, each with these keys.',
  'listen.host': 'Address to listen on.',
  'listen.port': '0 takes a free one.',
  'listen.tls': 'Speak HTTPS.',
  'listen.redirect.to': 'The scheme.',
  'listen.timeouts': 'Patience with clients.',
  'listen.limits': 'Sizes, counts and rates that clients must keep to.',
  'listen.drain': 'How it stops.',
  admin: 'The admin port, apart from the edge; `false`: none.',
  'admin.host': 'Loopback unless you say otherwise: nothing on it asks who you are.',
  'admin.port': '0 takes a free one.',
  discovery: 'Where services are looked up.',
  'discovery.consul': 'Needed by services that name no `instances` and no `dns`.',
  'discovery.consul.datacenter': "Default: the agent's own.",
  'discovery.consul.tls': 'With an https `url`.',
  'discovery.consul.tls.serverName': "Name in Consul's certificate, if it isn't the URL's.",
  redis: 'Only needed by `rateLimit.store: redis`.',
  edge: 'Defaults for every route.',
  'edge.cors': 'Off unless set.',
  'edge.cors.exposedHeaders': 'Headers that scripts may read.',
  'edge.cors.credentials': 'Cookies and the like; not with origin `"*"`.',
  'edge.jwt': 'Off unless set. Exactly one of `secret`, `publicKey` and `jwks`.',
  'edge.jwt.issuer': 'If set, `iss` must be there and be one of these.',
  'edge.jwt.audience': 'If set, `aud` must be there and hold one of these.',
  'edge.rateLimit': 'Off unless set. Each route counts on its own.',
  'edge.websocket': '`false`: handshakes are refused with 403.',
  'edge.requestId': 'For all routes; a route cannot change it.',
  mesh: 'Defaults for every service.',
  'mesh.retry': 'Before anything of the response went to the client, and only bodies that can be sent again.',
  'mesh.healthCheck.path': 'What is asked for.',
  'mesh.outlierDetection.successRate': 'Compared with the mean of all instances; off unless set.',
  'mesh.outlierDetection.failurePercentage': 'By its own share of failures; off unless set.',
  'mesh.fallback[].service':
    'Another service, with its own policy. A fallback is exactly one of `service`, `stale` and `status`.',
  'mesh.fallback[].headers': 'With `status`.',
  'mesh.fallback[].body': 'With `status`.',
  'mesh.mirror.service': 'Where the copy goes.',
  'mesh.fault.delay': 'Before an attempt.',
  'mesh.fault.abort': 'Instead of an attempt.',
  'mesh.fault.bandwidth': 'On the way back.',
  'mesh.identity': 'With `mode: connect`.',
  'discovery.snapshot': 'Instances are served from it until the registry answers.',
  'services.<name>.subsets': 'Parts of the instances, which routes may choose.',
  'routes[].split[].match.headers': 'Headers with exactly these values.',
  'routes[].split[].match.cookies': 'Cookies with exactly these values.',
  'mesh.retry.backoff': 'Pause before a retry: exponential, with full jitter.',
  services: 'One source each: `consul`, `instances` or `dns`; none of them means Consul, by its own name.',
  'services.<name>': 'Name of a-z, 0-9 and dashes; routes call it by this.',
  'services.<name>.consul': 'Found in Consul.',
  'services.<name>.consul.datacenter': "Default: `discovery.consul`'s.",
  'services.<name>.instances': 'A fixed list of origins.',
  'services.<name>.instances[].weight': 'Share of the traffic relative to the others.',
  'services.<name>.dns': 'Found in DNS; asked again when the answer expires.',
  'services.<name>.dns.srv': 'Ask for SRV records: they bring port, priority and weight.',
  'services.<name>.mesh': 'As `mesh`, for this service; what is unset comes from there.',
  routes: 'The most specific match wins, whatever the order.',
  'routes[].name': 'Unique; labels logs and metrics.',
  'routes[].match': 'All that is given must fit.',
  'routes[].match.path.exact': 'This path and nothing below it.',
  'routes[].match.headers': 'Headers with exactly these values.',
  'routes[].split[].service': 'One of `services`.',
  'routes[].split[].weight': 'Share relative to the others.',
  'routes[].path': 'Unset: path and query go on byte for byte. Set: `Location` is changed back on the way out.',
  'routes[].path.rewrite': 'Instead of `strip`.',
  'routes[].httpProxy': 'With `via: http-proxy`.',
  'routes[].edge': 'As `edge`, for this route; `false` switches a concern off. A concern is replaced whole.',
  'routes[].mesh':
    "As `mesh`, for this route's calls; what has a state (balancing, health, breakers, limits, TLS) belongs to the service.",
  'plugins[].options': "The plugin's second argument."
}
/** Set by the loader rather than by the schema. */
const defaults: Readonly<Record<string, string>> = {
  'edge.bodyLimit': '10mb',
  'edge.accessLog': 'true',
  'edge.websocket': 'on',
  'edge.host': 'preserve'
}
/** Keys whose names are the user's, and whose meaning is their holder's. */
const isFree = ({ path }: Row) => path.endsWith('.<name>') && path !== 'services.<name>'

/** The top-level keys, in the order in which they are told. */
const sections = [
  'listen',
  'admin',
  'discovery',
  'redis',
  'edge',
  'mesh',
  'services',
  'routes',
  'consumers',
  'plugins',
  'watch'
]

/** Every key of the schema: `routes[].match.path`, `services.<name>.dns`. */
export function keys(shape: Shape = loader.schema as Shape, path = ''): Row[] {
  const rows: Row[] = []
  const add = (key: string, inner: Shape, required: boolean) => {
    const at = path === '' ? key : `${path}.${key}`
    rows.push({ path: at, shape: inner, required }, ...keys(inner, at))
  }
  for (const [key, inner] of Object.entries(shape.properties ?? {})) {
    add(key, inner, shape.required?.includes(key) === true && inner.default === undefined)
  }
  const [[pattern, named] = []] = Object.entries(shape.patternProperties ?? { '': shape.additionalProperties })
  if (typeof named === 'object' && pattern !== '^x-') add('<name>', named, false)
  if (shape.items) rows.push(...keys(shape.items, `${path}[]`))
  for (const branch of [shape.then, shape.else]) if (branch) rows.push(...keys(branch, path))
  return rows
}

const code = (text: string) => `\`${text.replaceAll('|', '\\|')}\``

/** Returns the names that a value can have; the methods of HTTP, which everybody knows, under one name. */
const listed = (values: unknown[]) =>
  values.includes('GET') && values.length > 14 ? 'HTTP method' : values.map((value) => code(String(value))).join(', ')

export function kind(shape: Shape): string {
  if (shape.then && shape.else) {
    if (shape.then.const === 0) return kind(shape.else)
    const both = [kind(shape.then), kind(shape.else)]
    return [...new Set(both)].join(' or ')
  }
  if (shape.const !== undefined) return code(String(shape.const))
  if (shape.unit) return shape.unit
  if (shape.enum) return listed(shape.enum)
  if (shape.format === 'url') return 'URL'
  if (shape.type === 'array') {
    return shape.items ? `list of ${kind(shape.items)}` : 'list'
  }
  if (shape.type === 'object') return 'mapping'
  return shape.expected ?? shape.type ?? 'anything'
}

function standard({ path, shape, required }: Row): string {
  if (required) return 'required'
  if (defaults[path] !== undefined) return code(defaults[path])
  const { default: value } = shape
  if (value === undefined) return '–'
  if (Array.isArray(value)) return value.length === 0 ? 'none' : code(value.join(', '))
  return typeof value === 'object' ? 'see its keys' : code(String(value))
}

/** In the words of the schema, of one of its branches, or ours. */
export function meaning({ path, shape }: Row): string {
  const [, half, concern] = /^(?:routes\[\]|services\.<name>)\.(edge|mesh)\.(\w+)$/.exec(path) ?? []
  if (concern !== undefined) return `As \`${half}.${concern}\`.`
  return shape.description ?? notes[path] ?? shape.then?.description ?? shape.else?.description ?? ''
}

const fence = (text: string) => text.replaceAll('|', '\\|')
export const keyOf = ({ path }: Row) => path.replaceAll('<name>', 'NAME')

function table(rows: Row[]): string {
  const lines = rows.map((row) => {
    return `| ${code(keyOf(row))} | ${kind(row.shape)} | ${standard(row)} | ${fence(meaning(row))} |`
  })
  return ['| key | value | default | |', '| --- | --- | --- | --- |', ...lines].join('\n')
}

/** The keys of a listener are told once; a list repeats them. A concern's keys are told once, where it is set for all; a route or service repeats only their names. */
function isRepeated({ path }: Row): boolean {
  if (path.startsWith('listen[]')) return true
  return /^routes\[\]\.edge\.\w+[.[]/.test(path) || /^(routes\[\]|services\.<name>)\.mesh\.\w+[.[]/.test(path)
}

/** The rows of the tables. */
export const rows = () => keys().filter((row) => !isRepeated(row) && !isFree(row))
export const unusedNotes = () => Object.keys(notes).filter((path) => !keys().some((row) => row.path === path))

export function reference(): string {
  const all = rows()
  return sections
    .map((section) => {
      const own = all.filter(
        ({ path }) => path === section || (/^[.[]/.test(path.slice(section.length)) && path.startsWith(section))
      )
      return `### ${section}\n\n${table(own)}`
    })
    .join('\n\n')
}

/** The page with its reference brought up to date. */
export function updated(page: string): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`${readme} lacks its marks`)
  return `${before}${begin}\n\n${reference()}\n\n${end}${after}`
}

if (import.meta.main) writeFileSync(readme, updated(readFileSync(readme, 'utf8')))
