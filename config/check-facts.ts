/** Checks that each fact on which a concern relies, such as the consumer, is provided on the same route. */
import type { Steps } from '../plugins/time-slices.ts'
import type { Checked, Fact, Key } from './concern.ts'
import { pointer } from './faults.ts'
import { pluginName } from './schema/plugin.ts'
import type { Config, RouteConfig, Written, WrittenRoute } from './schema.ts'

/** A concern that relies on a fact which is not provided. */
interface Lack {
  readonly key: Key
  readonly fact: Fact
  /** Option that makes the concern rely on the fact; absent if that is the concern itself. */
  readonly option: string | undefined
  readonly message: string
}

/** Returns `a, b or c`. */
const anyOf = (names: readonly string[]) => [names.slice(0, -1).join(', '), names.at(-1)].filter(Boolean).join(' or ')

const providersOf = (keys: readonly Key[], fact: Fact) => keys.filter(({ provides }) => provides?.includes(fact))

/** Returns whether one of these concerns provides a fact with the options that it has in a policy. */
const isProvided = (providers: readonly Key[], fact: Fact, policy: object) =>
  providers.some((key) => {
    const options: unknown = Reflect.get(policy, key.name)
    return Boolean(options) && (key.provided?.(options) ?? [fact]).includes(fact)
  })

const lacks = {
  consumer: 'nothing on this route identifies the consumer',
  claims: 'nothing on this route verifies a token with claims'
} satisfies { readonly [F in Fact]: string }

/**
 * Returns the concerns of a policy that rely on a fact which neither a concern of the policy nor a plugin (`byPlugin`)
 * provides. `from` returns a text that follows the fact in the message.
 */
export function missingFacts(
  keys: readonly Key[],
  policy: object,
  byPlugin: (fact: Fact) => boolean,
  from: (key: Key) => string = () => ''
): Lack[] {
  return keys.flatMap((key) => {
    const options: unknown = Reflect.get(policy, key.name)
    if (key.needs === undefined || typeof options !== 'object' || options === null) return []
    const found = [key.needs].flat().flatMap(({ fact, option: name, value }) => {
      const isNeeded = (each: unknown) => (typeof value === 'function' ? value(each) : each === value)
      const list = Array.isArray(options) ? options : [options]
      const index = name === undefined ? 0 : list.findIndex((each) => isNeeded(Reflect.get(Object(each), name)))
      const providers = providersOf(keys, fact)
      if (index === -1 || byPlugin(fact) || isProvided(providers, fact, policy)) return []
      const option = list === options ? `${index}/${name}` : name
      return [{ key, fact, option, message: `${fact}${from(key)}: ${lacks[fact]}; add ${adviceOf(providers)}` }]
    })
    return found.slice(0, 1)
  })
}

/** Returns the names of concerns and plugins that provide a fact. A plugin that sets the consumer may set claims, too. */
const adviceOf = (providers: readonly Key[]) =>
  anyOf([...providers.map(({ name }) => name), 'a plugin that declares provides: [consumer]'])

/** Checks that on each route concerns have the facts that they rely on. */
export function* checkFacts({ data, report, keys }: Checked): Steps<void> {
  if (!report.usable('/routes')) return
  for (const [index, route] of data.routes.entries()) {
    yield
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || report.unknownKeyIn(at)) continue
    if (!report.sound('/plugins') || !report.sound(pointer('/routes', index, 'plugins'))) continue
    const byPlugin = (fact: Fact) => isProvidedByPlugin(fact, data, route)
    const isOwn = ({ name }: Key) => route.edge !== undefined && Object.hasOwn(route.edge, name)
    const policy = { ...data.edge, ...route.edge }
    for (const lack of missingFacts(keys.edge, policy, byPlugin, (key) => (isOwn(key) ? '' : ' (inherited)'))) {
      const { key, fact, option, message } = lack
      const involved = [key, ...providersOf(keys.edge, fact)]
      const isSound = involved.every(({ name }) => report.sound(`${at}/${name}`) && report.sound(`/edge/${name}`))
      if (isSound) report.fault(`${at}/${key.name}${option === undefined ? '' : `/${option}`}`, message)
    }
  }
}

/**
 * Returns who could provide a fact, for messages: nothing on this route does. Null if something does, or if the keys from
 * which this would follow have faults.
 */
export function lackingProviders(
  fact: Fact,
  at: string,
  route: WrittenRoute,
  { data, report, keys }: Checked
): string | null {
  const keysAreSound = ['/plugins', `${at}/plugins`, '/edge', `${at}/edge`].every((place) => report.sound(place))
  if (!keysAreSound || keys.lackConcerns || isProvidedByPlugin(fact, data, route)) return null
  const providers = providersOf(keys.edge, fact)
  return isProvided(providers, fact, { ...data.edge, ...route.edge }) ? null : adviceOf(providers)
}

/** Sections of a configuration, as written or loaded, that name who else identifies callers. */
type Sections = Pick<Written, 'listeners'> & {
  readonly plugins: readonly Omit<Written['plugins'][number], 'routeConfig'>[]
}
type Reached = Pick<WrittenRoute, 'match'> & { readonly plugins?: readonly string[] }

/** Returns whether something on a configured route identifies the consumer: a concern of its policy, a plugin or the mesh. */
export const identifiesConsumers = (keys: readonly Key[], policy: object, data: Sections, route: Reached): boolean =>
  identifiesByConcern(keys, policy) || isProvidedByPlugin('consumer', data, route)

/** Returns whether a concern of a policy identifies the consumer. */
export const identifiesByConcern = (keys: readonly Key[], policy: object): boolean =>
  isProvided(providersOf(keys, 'consumer'), 'consumer', policy)

function isProvidedByPlugin(fact: Fact, data: Sections, route: Reached): boolean {
  const isCaller = fact === 'consumer' && hasCallers(data, route)
  return isCaller || data.plugins.some((plugin) => plugin.provides?.includes('consumer') && runsOn(plugin, route))
}

/** Returns whether services reach a route through the mesh: the calling service is the consumer. */
function hasCallers({ listeners }: Sections, { match }: Reached): boolean {
  return listeners.some(({ name, connect }) => connect !== undefined && match.listeners?.includes(name) !== false)
}

/** Returns whether a plugin's hooks run on a route. */
function runsOn(plugin: Sections['plugins'][number], { plugins }: Reached): boolean {
  if (plugin.prefix !== undefined) return false
  return plugin.scope === 'all' || plugins?.includes(pluginName(plugin)) === true
}

/** Returns whether a concern that needs the bridge has no effect on a route. */
export const lacksBridge = ({ forward }: Pick<Config, 'forward'>, route: Pick<RouteConfig, 'isBridged'> | undefined) =>
  route?.isBridged === false && forward === undefined
