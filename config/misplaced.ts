/** Advice for keys that are not known where they stand, but elsewhere or in other gateways. */
import { RouteEdge } from './schema/edge.ts'
import { MeshOverride, RouteMesh } from './schema/mesh.ts'
import { Gateway, Match, Service } from './schema.ts'

const plugin = 'it is not built in; a plugin can do it (plugins/README.md)'

/** Keys of other gateways, by what they would have the gateway do. */
const byName: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'keyAuth', 'apiKey', 'apiKeys', 'basicAuth', 'oidc', 'oauth2', 'forwardAuth', 'hmacAuth', 'ldap', 'acl', 'ipFilter',
      'ipAllowList', 'ipRestriction', 'compress', 'compression', 'gzip', 'redirect', 'cache', 'caching', 'csrf', 'cookies',
      'session', 'headers', 'requestHeaders', 'responseHeaders', 'errorPages', 'maintenance', 'middlewares', 'static'
    ].map((name) => [name, plugin])
  ),
  ...Object.fromEntries(
    ['strategy', 'loadBalancing', 'loadBalancer', 'lb'].map((name) => [name, 'write mesh.balance'])
  ),
  ...Object.fromEntries(
    ['urls', 'url', 'upstreams', 'upstream', 'targets', 'target', 'servers', 'endpoints', 'nodes', 'address'].map((name) => [
      name,
      'write the addresses of a service under "instances"'
    ])
  ),
  retries: 'write retry: { attempts: 2 } under "mesh"',
  sni: 'a listener has one certificate: listen.tls',
  upstream_uri: 'name the service, and change its path by path.strip or path.rewrite',
  uri: 'write the path of a route under match.path',
  paths: 'write the path of a route under match.path',
  prefix: 'write the path of a route under match.path; a prefix is taken off by path.strip',
  stripPrefix: 'write path: { strip: /prefix }',
  stripPath: 'write path: { strip: /prefix }',
  rewrite: 'write path: { rewrite: { prefix: /prefix } }'
} // biome-ignore format: a table

/** Keys that mean something else, or nothing, in one place. */
const byPlace: readonly (readonly [place: RegExp, keys: string, advice: string])[] = [
  [/^\/listen$/, 'redirect', 'redirects from http to https are not built in; the load balancer or a plugin can answer with them'],
  [/^\/routes\/\d+(\/edge)?$|^\/edge$/, 'headers', 'to match by headers, write match.headers; to change them, write a plugin (plugins/README.md)'],
  [/^\/listen\/limits$/, 'body', 'write edge.bodyLimit'],
  [/\/mesh\/connections$/, 'idleTimeout|keepAlive', 'write connections.idle'],
  [/^$/, 'servers|upstreams|backends|clusters', 'write each under "services", and its addresses under "instances"'],
  [/^\/routes\/\d+$/, 'upstream|backend|target|proxyPass', 'name one of "services" under "service"'],
  [/^\/routes\/\d+\/edge$/, 'requestId', 'requestId can only be set under the top-level edge'],
  [/^\/plugins\/\d+$/, 'config', 'write the second argument of the plugin under "options"']
] // biome-ignore format: a table

interface Section {
  readonly key: string
  readonly schema: { readonly properties: object }
}

/** Sections beside or below a mapping in which a key may have been meant. */
function sectionsFor(holder: string): Section[] {
  const [edge, mesh] = [
    { key: 'edge', schema: RouteEdge },
    { key: 'mesh', schema: MeshOverride }
  ]
  if (holder === '') return [edge, mesh, { key: 'listen', schema: Gateway.properties.listen }]
  if (holder === '/edge') return [mesh]
  if (holder === '/mesh') return [edge]
  if (/^\/services\/[^/]+$/.test(holder)) return [mesh]
  if (/^\/routes\/\d+$/.test(holder)) return [{ key: 'match', schema: Match }, edge, { key: 'mesh', schema: RouteMesh }]
  if (/^\/routes\/\d+\/edge$/.test(holder))
    return [
      { key: 'mesh', schema: RouteMesh },
      { key: 'match', schema: Match }
    ]
  if (/^\/routes\/\d+\/mesh$/.test(holder)) return [edge]
  return []
}

/** `strip_path` and `strip-path` are `stripPath`, too. */
const folded = (key: string) => key.replace(/[_-]/g, '').toLowerCase()

const byFoldedName: ReadonlyMap<string, string> = new Map(
  Object.entries(byName).map(([name, advice]) => [folded(name), advice])
)

/** Returns `; …` with what to write instead of a key, or null if nothing is known of it. */
export function misplaced(holder: string, key: string): string | null {
  const name = folded(key)
  const placed = byPlace.find(([place, keys]) => place.test(holder) && keys.split('|').map(folded).includes(name))
  if (placed !== undefined) return `; ${placed[2]}`
  if (/^\/routes\/\d+\/mesh$/.test(holder) && Object.hasOwn(MeshOverride.properties, key)) {
    return '; it belongs to the service'
  }
  const section = sectionsFor(holder).find(({ schema }) => Object.hasOwn(schema.properties, key))
  if (section !== undefined) return `; it belongs under "${section.key}"`
  if (holder === '' && Object.hasOwn(Service.properties, key)) return '; it belongs to a service, under "services"'
  const advice = byFoldedName.get(name)
  return advice === undefined ? null : `; ${advice}`
}
