// The tables of config/README.md, made from the schema. As a command it writes them: `npm run docs`.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loader } from '../../plugins/config.ts'
import { sources } from '../../plugins/mesh/discovery/sources.ts'

export const readme = join(import.meta.dirname, '../../config/README.md')
const begin = '<!-- reference: written by `npm run docs` -->'
const end = '<!-- end of the reference -->'

/** The keywords of a JSON Schema that the reference describes. */
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

const names = sources.map(({ name }) => `\`${name}\``).join(', ')

/** Descriptions of keys that have none in the schema. */
const notes: Readonly<Record<string, string>> = {
  listen: 'Listener for clients, or a list of several listeners, each with these keys.',
  'listen.host': 'Address to listen on.',
  'listen.port': 'TCP port. 0: any free one.',
  'listen.tls': 'TLS settings. Default: plain HTTP.',
  'listen.redirect.to': 'Scheme of the redirect.',
  'listen.timeouts': 'Time limits for clients.',
  'listen.limits': 'Limits of sizes, counts and rates for clients.',
  'listen.drain': 'Graceful shutdown.',
  admin: 'Separate port for metrics, health checks and the admin API. `false`: no admin port.',
  'admin.host': 'Address to listen on. The admin port has no authentication, so the default is loopback.',
  'admin.port': 'TCP port. 0: any free one.',
  discovery: 'Sources of service instances.',
  'discovery.consul': 'Consul, in which services are found.',
  'discovery.file': 'Files with instances.',
  'discovery.eureka': 'Eureka, the registry of Spring Cloud Netflix.',
  'discovery.eureka.tls': 'TLS settings for https `urls`.',
  'discovery.consul.tls': 'TLS settings for an https `url`.',
  redis: 'Required by `store: redis` of `rateLimit`, `cache` and `oidc.session`.',
  edge: 'Defaults for every route.',
  'edge.cors': 'Off unless set.',
  'edge.cors.exposedHeaders': 'Response headers that scripts may read.',
  'edge.cors.credentials': 'true: browsers may send cookies and other credentials. Not allowed with origin `"*"`.',
  'edge.jwt': 'Off unless set. Exactly one of `secret`, `publicKey`, `jwks`, `discovery` and `issuers`.',
  'edge.jwt.issuer': 'If set, a token must have the claim `iss` with one of these values.',
  'edge.rateLimit':
    'Off unless set. A list of several limits: a request has to be within all. Each route has counters of its own.',
  'edge.websocket': 'WebSocket connections. `false`: handshakes get 403.',
  'edge.requestId': 'Request id, for all routes; a route cannot change it.',
  mesh: 'Defaults for every service. `false`: the gateway runs without the mesh, and calls services as `forward` says.',
  forward: 'Calls to services without the mesh; only with `mesh: false`. Also defaults for every service.',
  'mesh.retry':
    'Retries of failed calls, while no part of the response has been sent to the client and the request body can be replayed.',
  'mesh.healthCheck.path': 'Path of the check request.',
  'mesh.outlierDetection.successRate':
    'Ejects instances whose success rate is far below the mean of all instances. Off unless set.',
  'mesh.outlierDetection.failurePercentage':
    'Ejects instances whose own share of failures is too high. Off unless set.',
  'mesh.fallback[].service':
    'Service that is called instead, with its own policy. A fallback has exactly one of `service`, `stale` and `status`.',
  'mesh.fallback[].headers': 'Headers of the static response; with `status`.',
  'mesh.fallback[].body': 'Body of the static response; with `status`.',
  'mesh.mirror.service': 'Service that gets the copies.',
  'mesh.fault.delay': 'Delays attempts before they start.',
  'mesh.fault.abort': 'Responds with a status instead of making the attempt.',
  'mesh.fault.bandwidth': 'Slows down response bodies.',
  'mesh.identity': 'Identity of the gateway in Consul Connect; with `mode: connect`.',
  'discovery.snapshot': 'Source of instances after a start, until the registry responds.',
  'services.<name>.subsets': 'Named selections of instances, which routes can choose.',
  'routes[].split[].match.headers': 'Request headers with exactly these values.',
  'routes[].split[].match.cookies': 'Request cookies with exactly these values.',
  'mesh.retry.backoff': 'Delay before a retry: exponential, with full jitter.',
  services: `Upstream services by name. Each has one source of instances: ${names}. Without any it is found by its name in the configured registry.`,
  'services.<name>': 'A service. Its name consists of a-z, 0-9 and dashes; routes refer to it.',
  'services.<name>.consul': 'Instances from Consul.',
  'services.<name>.instances': 'Fixed list of instances.',
  'services.<name>.instances[].weight': 'Share of the traffic, relative to the other instances.',
  'services.<name>.eureka': 'Instances from Eureka.',
  'services.<name>.file': 'Instances from a file, which is read again when it changes.',
  'services.<name>.dns': 'Instances from DNS. The name is resolved again when its records expire.',
  'services.<name>.dns.srv': 'true: SRV records, which set port, priority and weight.',
  'services.<name>.forward':
    'As `forward`, for this service; only with `mesh: false`. Keys that are not set here are inherited from `forward`.',
  'services.<name>.mesh': 'As `mesh`, for this service. Concerns that are not set here are inherited from `mesh`.',
  groups:
    'Settings that several routes share, by the name that `routes[].group` refers to. A route keeps what it sets itself; see routes/README.md.',
  'groups.<name>': 'Settings of the routes of a group. All keys are those of `routes[]`.',
  routes: 'Routes for clients. The highest priority, then the most specific match wins.',
  'routes[].name': 'Unique name, used in logs and metric labels.',
  'routes[].match': 'Conditions for requests. All that are set must match.',
  'routes[].match.path.exact': 'Matches this path, and no paths below it.',
  'routes[].match.path[].exact': 'Matches this path, and no paths below it.',
  'routes[].split[].service': 'One of `services`.',
  'routes[].split[].weight': 'Share of the calls, relative to the other shares.',
  'routes[].path':
    'Changes of the path before the call. If unset, path and query are forwarded byte for byte. With `strip` and `rewrite.prefix`, `Location` headers of responses are changed back.',
  'routes[].path.rewrite': 'Replacement of the path; instead of `strip`.',
  'routes[].httpProxy': 'Options for `via: http-proxy`.',
  'routes[].edge':
    'As `edge`, for this route. A concern that is set here replaces the inherited one completely; `false` switches it off.',
  'routes[].forward': 'As `forward`, for the calls of this route; only with `mesh: false`.',
  'routes[].mesh':
    'As `mesh`, for the calls of this route. Concerns with state (balancing, health, caps, limits, TLS) can only be set for services; a `circuitBreaker` here is one of the route alone.',
  'sidecar.outbound[].socketMode': 'With `path`: permissions of the socket file.',
  'sidecar.inbound.host': 'Address to listen on.',
  'sidecar.inbound.socketMode': 'With `path`: permissions of the socket file.',
  'sidecar.inbound.tls':
    'As `listen.tls`. With `clientCertificate: { mode: require, ca: FILE }`, callers must show a certificate.',
  'sidecar.inbound.connect': 'As `listen.connect`: accepts only services of the mesh (Consul Connect).',
  'sidecar.drain': 'As `listen.drain`.',
  'sidecar.websocket': 'As `edge.websocket`, for calls in both directions.',
  'routes[].compose.calls.<name>.mesh': 'As `routes[].mesh`, for this call.',
  'plugins[].options': 'Options of the plugin: its second argument.'
}
/** Set by the loader rather than by the schema. */
const defaults: Readonly<Record<string, string>> = {
  'edge.bodyLimit': '10mb',
  'edge.accessLog': 'true',
  'sidecar.accessLog': 'false',
  'sidecar.websocket': 'on',
  'edge.websocket': 'on',
  'edge.host': 'preserve'
}
/** Keys whose names are the user's, and whose meaning is their holder's. */
const isFree = ({ path }: Row) => path.endsWith('.<name>') && path !== 'services.<name>'

/** The top-level keys, in the order of the page. */
const sections = [
  'listen',
  'admin',
  'discovery',
  'redis',
  'tracing',
  'metricsPush',
  'edge',
  'mesh',
  'forward',
  'services',
  'groups',
  'routes',
  'consumers',
  'plugins',
  'watch',
  'sidecar'
]

/** Every key of the schema: `routes[].match.path`, `services.<name>.dns`. */
export function keys(shape: Shape = loader.schemaOfForms as Shape, path = ''): Row[] {
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

let found: ReadonlyMap<string, Row> | undefined

/** The keys that can be set for all routes or services, by their paths. */
function topLevel(): ReadonlyMap<string, Row> {
  found ??= new Map(
    keys().flatMap((row) => (/^(edge|mesh|forward)\.\w+$/.test(row.path) ? [[row.path, row] as const] : []))
  )
  return found
}

/** In the words of the schema, of one of its branches, or ours. */
export function meaning({ path, shape }: Row): string {
  const [, shared] = /^groups\.<name>\.(\w+)$/.exec(path) ?? []
  if (shared !== undefined) return `As \`routes[].${shared}\`.`
  const [, shaping] = /^routes\[\]\.compose\.response\.(pick|drop|rename|edit)$/.exec(path) ?? []
  if (shaping !== undefined) return `As \`${shaping}\` of a call, for the merged object.`
  const [, half, concern] =
    /^(?:routes\[\]|consumers\[\]|services\.<name>)\.(edge|mesh|forward)\.(\w+)$/.exec(path) ?? []
  const ofAll = topLevel().get(`${half}.${concern}`)
  const differs = ofAll?.shape.description !== shape.description && half === 'mesh'
  if (ofAll && concern !== undefined) {
    return `As \`${half}.${concern}\`.${differs && shape.description ? ` ${shape.description}` : ''}`
  }
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

/** The keys of a listener and of a rate limit are documented once; a list repeats them. A concern's keys are documented once, where it is set for all; a route or service repeats only their names. */
function isRepeated({ path }: Row): boolean {
  if (/^groups\.<name>\.\w+[.[]/.test(path)) return true
  if (path.startsWith('listen[]') || path.startsWith('edge.rateLimit[]')) return true
  if (
    /^sidecar\.inbound(\[\]\.|\.(tls|connect|mesh)[.[])/.test(path) ||
    /^sidecar\.(drain|websocket|admin)\./.test(path)
  )
    return true
  if (/^routes\[\]\.compose\.(response\.edit\[|calls\.<name>\.mesh\.)/.test(path)) return true
  const [, half, concern] =
    /^(?:routes\[\]|consumers\[\]|services\.<name>)\.(edge|mesh|forward)\.(\w+)[.[]/.exec(path) ?? []
  return concern !== undefined && topLevel().has(`${half}.${concern}`)
}

/** The rows of the tables. Keys that several forms of a value have in common are documented once. */
export const rows = () =>
  keys().filter((row, i, all) => {
    return !isRepeated(row) && !isFree(row) && all.findIndex(({ path }) => path === row.path) === i
  })
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
