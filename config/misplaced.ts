/** Advice for keys that are not known where they stand, but elsewhere or in other gateways. */
import type { Key, Keys, Level } from './concern.ts'
import { keysAt } from './concern.ts'
import { Listen } from './schema/gateway.ts'
import { Match } from './schema/route.ts'
import { Service } from './schema/service.ts'

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
    ['urls', 'url', 'upstreams', 'upstream', 'targets', 'target', 'servers', 'endpoints', 'nodes', 'address'].map((name) => [
      name,
      'write the addresses of a service under "instances"'
    ])
  ),
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
  [/^$/, 'servers|upstreams|backends|clusters', 'write each under "services", and its addresses under "instances"'],
  [/^\/routes\/\d+$/, 'upstream|backend|target|proxyPass', 'name one of "services" under "service"'],
  [/^\/plugins\/\d+$/, 'config', 'write the second argument of the plugin under "options"']
] // biome-ignore format: a table

/** `strip_path` and `strip-path` are `stripPath`, too. */
const folded = (key: string) => key.replace(/[_-]/g, '').toLowerCase()

/** A section beside or below a mapping in which a key may have been meant. */
type Section = readonly [name: string, keys: ReadonlySet<string>]

const match = new Set(Object.keys(Match.properties))
const listen = new Set(Object.keys(Listen.properties))

export class Advisor {
  readonly #keys: Keys
  readonly #byFoldedName: ReadonlyMap<string, string>

  constructor(keys: Keys) {
    this.#keys = keys
    const ofConcerns = [...keys.edge, ...keys.mesh].flatMap((key) => Object.entries(key.aliases ?? {}))
    this.#byFoldedName = new Map(
      [...ofConcerns, ...Object.entries(byName)].map(([name, advice]) => [folded(name), advice])
    )
  }

  /** Returns `; …` with what to write instead of a key, or null if nothing is known of it. */
  misplaced(holder: string, key: string): string | null {
    const name = folded(key)
    const placed = byPlace.find(([place, keys]) => place.test(holder) && keys.split('|').map(folded).includes(name))
    if (placed !== undefined) return `; ${placed[2]}`
    const known = this.#within(holder, name) ?? this.#ofAnotherLevel(holder, key) ?? this.#ofAnotherSection(holder, key)
    if (known !== null) return `; ${known}`
    const advice = this.#byFoldedName.get(name)
    return advice === undefined ? null : `; ${advice}`
  }

  /** Advice for a key within the options of a concern. */
  #within(holder: string, name: string): string | null {
    const [, half, concern] = /\/(edge|mesh)\/([^/]+)$/.exec(holder) ?? []
    if (half === undefined) return null
    const { innerAliases = {} } = this.#keys[half as 'edge' | 'mesh'].find((key) => key.name === concern) ?? {}
    return Object.entries(innerAliases).find(([alias]) => folded(alias) === name)?.[1] ?? null
  }

  /** Advice for a key of the same half that cannot be set at this level. */
  #ofAnotherLevel(holder: string, key: string): string | null {
    const half = /\/(edge|mesh)$/.exec(holder)?.[1] as 'edge' | 'mesh' | undefined
    const known = half && this.#keys[half].find(({ name }) => name === key)
    if (half === undefined || known === undefined) return null
    if (holder.startsWith('/routes/') && known.levels.includes('service')) return 'it belongs to the service'
    return known.levels.includes('gateway') ? `${key} can only be set under the top-level ${half}` : null
  }

  #ofAnotherSection(holder: string, key: string): string | null {
    const section = this.#sectionsFor(holder).find(([, keys]) => keys.has(key))
    if (section !== undefined) return `it belongs under "${section[0]}"`
    if (holder === '' && Object.hasOwn(Service.properties, key)) return 'it belongs to a service, under "services"'
    return null
  }

  #sectionsFor(holder: string): Section[] {
    const section = (name: string, keys: readonly Key[], level: Level): Section => {
      return [name, new Set(keysAt(keys, level).map((key) => key.name))]
    }
    const edge = section('edge', this.#keys.edge, 'route')
    const ofServices = section('mesh', this.#keys.mesh, 'service')
    const ofRoutes = section('mesh', this.#keys.mesh, 'route')
    if (holder === '') return [edge, ofServices, ['listen', listen]]
    if (holder === '/edge') return [ofServices]
    if (holder === '/mesh') return [edge]
    if (/^\/services\/[^/]+$/.test(holder)) return [ofServices]
    if (/^\/routes\/\d+$/.test(holder)) return [['match', match], edge, ofRoutes]
    if (/^\/routes\/\d+\/edge$/.test(holder)) return [ofRoutes, ['match', match]]
    if (/^\/routes\/\d+\/mesh$/.test(holder)) return [edge]
    return []
  }
}
