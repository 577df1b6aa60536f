/** Advice for unknown keys that exist in another section, or in other gateways. */
import type { Key, Keys, Level } from './concern.ts'
import { keysAt } from './concern.ts'
import { folded, foreignAdvice, plugin } from './foreign-keys.ts'
import { didYouMean } from './nearest.ts'
import { Listen } from './schema/gateway.ts'
import { Match } from './schema/route.ts'
import { Service } from './schema/service.ts'

/** Keys of other gateways that are unknown in any section, with advice for each. */
const byName: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'ldap', 'session', 'middlewares'
    ].map((name) => [name, plugin])
  ),
  ...Object.fromEntries(
    ['largeClientHeaderBuffers', 'clientHeaderBufferSize', 'maxRequestHeadersKb', 'maxHeaderBytes', 'limitRequestFieldSize'].map(
      (name) => [name, 'write listen.limits.headers']
    )
  ),
  sni: 'certificates are chosen by the names in them: listen.tls.certificates and listen.tls.folders; strict: true refuses other names',
  upstream_uri: 'name the service, and change its path by path.strip or path.rewrite',
  uri: 'write the path of a route under match.path',
  paths: 'write the path of a route under match.path',
  prefix: 'write the path of a route under match.path; path.strip removes a prefix',
  stripPrefix: 'write path: { strip: /prefix }',
  stripPath: 'write path: { strip: /prefix }',
  rewrite: 'write path: { rewrite: { prefix: /prefix } }'
} // biome-ignore format: a table

/** Keys with special advice in one section. */
const byPlace: readonly (readonly [place: RegExp, keys: string, advice: string])[] = [
  [/^\/routes\/\d+$/, 'headers', 'to match by headers, write match.headers; to change them, write them under "edge"'],
  [/^\/services\/[^/]+$/, 'urls|url|upstreams|upstream|targets|target|servers|endpoints|nodes|address|addresses|hosts', 'write the addresses of a service under "instances"'],
  [/^\/(listen|listeners\/[^/]+|admin)$/, 'address|addr|bind', 'write host and port'],
  [/^$/, 'servers|upstreams|backends|clusters', 'write each under "services", and its addresses under "instances"'],
  [/^\/routes\/\d+$/, 'upstream|backend|target|proxyPass', 'name one of "services" under "service"'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'allow|whitelist', 'write the members to keep under "pick"'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'deny|blacklist', 'write the members to drop under "drop"'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'mapping', 'write the old and new names of members under "rename"'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'isCollection', 'a "group" takes lists, too'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'flatmapFilter|flatmap', 'write the steps under "edit"'],
  [/^\/routes\/\d+\/compose\/calls\/[^/]+$/, 'urlPattern|url', 'write the path of the call under "path"'],
  [/^\/routes\/\d+\/compose$/, 'backend|backends', 'write each call, with a name, under "calls"'],
  [/^\/routes\/\d+\/compose$/, 'sequential', 'a call whose templates refer to another call waits for it'],
  [/^\/routes\/\d+\/redirect$/, 'statusCode|responseCode|retCode|code|permanent', 'write status: 301, 302, 303, 307 or 308'],
  [/^\/routes\/\d+\/redirect$/, 'uri|url|location|target|replacement|pathRedirect', 'write the path or URL under "to"'],
  [/^\/routes\/\d+\/redirect$/, 'host|hostRedirect|hostname', 'write to: "https://HOST"'],
  [/^\/routes\/\d+\/redirect$/, 'https|httpsRedirect|httpToHttps|schemeRedirect', 'write scheme: https'],
  [/^\/routes\/\d+\/redirect$/, 'portRedirect', 'write port, with scheme'],
  [/^\/routes\/\d+\/redirect$/, 'stripQuery|dropQuery|appendQueryString|keepQuery', 'write query: keep or query: drop'],
  [/^\/routes\/\d+\/redirect$/, 'regex|regexUri|regexRewrite|prefixRewrite|path|prefix', 'write it under "path" of the route: path: { rewrite: { regex: ^…$, to: … } }'],
  [/^\/routes\/\d+\/response$/, 'statusCode|responseStatus|code', 'write status'],
  [/^\/routes\/\d+\/response$/, 'content|text|message|responseExample|inlineString', 'write body'],
  [/^\/routes\/\d+\/response$/, 'type|mimeType|mediaType', 'write contentType'],
  [/^\/routes\/\d+\/response$/, 'filename|path', 'write file'],
  [/^\/routes\/\d+\/files$/, 'path|folder|directory|dir', 'write root'],
  [/^\/routes\/\d+\/files$/, 'fallback|tryFiles|history|historyApiFallback', 'write spa: true'],
  [/^\/routes\/\d+\/files$/, 'prefix|stripPrefix', 'write path: { strip: /prefix } at the route'],
  [/^\/routes\/\d+\/files$/, 'expires|ttl|cacheControl', 'write maxAge'],
  [/^\/consumers\/\d+$/, 'username', 'write it under "name"'],
  [/^((\/(routes|groups)\/[^/]+)?\/edge)?$/, 'mode|shadow|shadowMode|dryRun|reportOnly', 'write mode: shadow within each concern: CONCERN: { mode: shadow }'],
  [/^(\/(routes|groups)\/[^/]+)?\/edge\/\w+(\/\d+)?$/, 'shadow|shadowMode|dryRun|reportOnly', 'write mode: shadow'],
  [/^\/plugins\/\d+$/, 'config', 'write the second argument of the plugin under "options"']
] // biome-ignore format: a table

/** A section near a mapping, to which a misplaced key may belong. */
type Section = readonly [name: string, keys: ReadonlySet<string>]

const match = new Set(Object.keys(Match.properties))
const listen = new Set(Object.keys(Listen.properties))

/** Returns why a consumer cannot have its own options of a concern; null for an unknown one. */
export function notForConsumers(key: string, keys: readonly Key[]): string | null {
  const known = keys.find(({ name }) => name === key)
  if (known === undefined) return null
  const isIdentifying = known.credentials !== undefined || known.provides?.includes('consumer') === true
  const why = isIdentifying
    ? 'it identifies the consumer, so it cannot depend on one'
    : 'it takes effect before the consumer is known, or for a route as a whole'
  const own = keysAt(keys, 'consumer').map(({ name }) => name)
  return `${why}; a consumer can have its own ${own.join(', ')}`
}

export class Advisor {
  readonly #keys: Keys
  readonly #byFoldedName: ReadonlyMap<string, string>

  constructor(keys: Keys) {
    this.#keys = keys
    const ofConcerns = [...keys.edge, ...keys.mesh].flatMap((key) => Object.entries(key.aliases ?? {}))
    this.#byFoldedName = new Map(
      [...ofConcerns, ...Object.entries(byName)].flatMap(([names, advice]) =>
        names.split('|').map((name): [string, string] => [folded(name), advice])
      )
    )
  }

  /** Returns advice for an unknown key of a mapping, as `; …`; empty if there is none. */
  adviceFor(holder: string, key: string, known: readonly string[]): string {
    const [config, inner] = /^\/routes\/\d+\/config(\/.*)?$/.exec(holder) ?? []
    if (inner !== undefined) return didYouMean(key, known)
    if (config !== undefined) return this.#unread(key, holder, known)
    if (holder === '/consumers') {
      const stores = this.#keys.sources.flatMap(({ name, storedKey }) => (storedKey ? [`${name}: { key: … }`] : []))
      const places = ['file: PATH', ...stores].join(' or ')
      return didYouMean(key, known) || `; write a list: [{ name: alice, … }], or ${places}`
    }
    // Advice about other gateways is for sections. Within a concern, a similar key of the concern comes first.
    const isWithin = /^(\/(routes|services)\/[^/]+)?\/(edge|mesh)\/./.test(holder)
    const near = isWithin && this.#within(holder, folded(key)) === null ? didYouMean(key, known) : ''
    return near || (this.#misplaced(holder, key, known) ?? didYouMean(key, known))
  }

  /** Returns advice for a key of `routes[].config` that no plugin declares. */
  #unread(key: string, holder: string, known: readonly string[]): string {
    const reserved = this.#keys.routeConfig?.reserved.get(key)
    if (reserved !== undefined) return `; ${reserved}`
    const near = didYouMean(key, known)
    if (near !== '') return near
    const own = this.#ofAnotherSection(holder, key)
    const claim = `write routeConfig: [${key}] in the entry of the plugin that reads it`
    return `; no plugin declares this key; ${own === null ? claim : `the gateway's own ${key}: ${own}; a plugin's: ${claim}`}`
  }

  /** Returns advice for a key that is known elsewhere, as `; …`; null if it is not. */
  #misplaced(holder: string, key: string, siblings: readonly string[]): string | null {
    const name = folded(key)
    const placed = byPlace.find(([place, keys]) => place.test(holder) && keys.split('|').map(folded).includes(name))
    if (placed !== undefined) return `; ${placed[2]}`
    const known = this.#within(holder, name) ?? this.#ofAnotherLevel(holder, key)
    if (known !== null) return `; ${known}`
    const foreign = foreignAdvice(holder, key)
    if (foreign !== undefined) return (foreign === plugin && this.#nearConcern(holder, key)) || `; ${foreign}`
    const elsewhere = this.#ofAnotherSection(holder, key)
    if (elsewhere !== null) return `; ${elsewhere}`
    const advice = this.#byFoldedName.get(name)
    if (advice === undefined) return null
    // A similar key of the same mapping or of a loaded concern takes precedence over advice about other gateways.
    const isForeign = Object.hasOwn(byName, key)
    const near = (isForeign && didYouMean(key, siblings)) || (advice === plugin ? this.#nearConcern(holder, key) : '')
    return near || `; ${advice}`
  }

  /** Returns a similar key of a concern in the same section: `; did you mean "apiKey"?`, or an empty text. */
  #nearConcern(holder: string, key: string): string {
    const [, level, half] = /^(?:\/(routes|services)\/[^/]+)?\/(edge|mesh)$/.exec(holder) ?? []
    if (half === undefined) return ''
    const keys = this.#keys[half as 'edge' | 'mesh']
    const at = level === undefined ? 'gateway' : level === 'routes' ? 'route' : 'service'
    return didYouMean(
      key,
      keysAt(keys, at).map(({ name }) => name)
    )
  }

  /** Returns advice for a key within the options of a concern, which may be a list, or within one of its mappings. */
  #within(holder: string, name: string): string | null {
    const [, half, concern, part] = /\/(edge|mesh)\/([^/]+)(?:\/(?:\d+|(\w+)))?$/.exec(holder) ?? []
    if (half === undefined) return null
    const wanted = part === undefined ? name : folded(`${part}.${name}`)
    const { innerAliases = {} } = this.#keys[half as 'edge' | 'mesh'].find((key) => key.name === concern) ?? {}
    return (
      Object.entries(innerAliases).find(([aliases]) =>
        aliases.split('|').some((alias) => folded(alias) === wanted)
      )?.[1] ?? null
    )
  }

  /** Returns advice for a key of the same half that cannot be set at this level. */
  #ofAnotherLevel(holder: string, key: string): string | null {
    const half = /\/(edge|mesh)$/.exec(holder)?.[1] as 'edge' | 'mesh' | undefined
    const known = half && this.#keys[half].find(({ name }) => name === key)
    if (half === undefined || known === undefined) return null
    if (holder.startsWith('/consumers/')) return notForConsumers(key, this.#keys.edge)
    if (holder.startsWith('/routes/') && known.levels.includes('service')) return 'it can only be set for services'
    if (holder === '/mesh' && known.levels.includes('service')) return `write it under services.NAME.mesh`
    return known.levels.includes('gateway') ? `${key} can only be set under the top-level ${half}` : null
  }

  #ofAnotherSection(holder: string, key: string): string | null {
    const sections = this.#sectionsFor(holder)
    const section = sections.find(([, keys]) => keys.has(key))
    if (section !== undefined) return `it belongs under "${section[0]}"`
    for (const [name, keys] of sections) {
      const meant = [...keys].find((each) => folded(each) === folded(key))
      if (meant !== undefined) return `write ${meant} under "${name}"`
    }
    const isOfService = Object.hasOwn(Service.properties, key) || this.#keys.sources.some(({ name }) => name === key)
    if (holder === '' && isOfService) return 'it belongs to a service, under "services"'
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
    const config: Section = ['config', new Set(this.#keys.routeConfig?.schemas.keys())]
    if (/^\/routes\/\d+$/.test(holder)) return [['match', match], edge, ofRoutes, config]
    if (/^\/routes\/\d+\/edge$/.test(holder)) return [ofRoutes, ['match', match], config]
    if (/^\/routes\/\d+\/mesh$/.test(holder)) return [edge, config]
    if (/^\/routes\/\d+\/config$/.test(holder)) return [edge, ofRoutes]
    return []
  }
}
