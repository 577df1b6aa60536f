/** The contract of an edge concern, the same for bundled concerns and for those of users (plugins/README.md). */
import type { FastifyInstance, FastifyPluginAsync, FastifyPluginCallback, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { Static, TSchema } from 'typebox'
import type { AuthenticationMethod, Checked, Key, Place, TokenRequest } from '../../config/concern.ts'
import { gatewayAndRoute } from '../../config/concern.ts'
import { withMode } from '../../config/schema/kit.ts'
import type { Config, EdgePolicy, RouteConfig } from '../../config/schema.ts'
import type { Clock } from '../clock.ts'
import { CLOCK, systemClock } from '../clock.ts'
import stores from '../keep-stores.ts'
import type { ConfigurationMeter } from '../meter.ts'
import { unmetered } from '../meter.ts'
import type { Claims } from '../stores.ts'
import type { ApiFacts } from './api-facts.ts'
import type { EdgeRoute } from './attach.ts'
import { edgeRouteOf } from './attach.ts'
import type { EdgeCommand, Started } from './concern-commands.ts'
import type { RecordRefusal } from './concern-refusals.ts'
import { countingErrors, mayRefuse, refusalRecorder } from './concern-refusals.ts'
import type { Consumer } from './consumers/consumer.ts'
import type { ForConsumers } from './consumers/overrides.ts'
import { explainFor, Overrides } from './consumers/overrides.ts'
import type { ConsumerRegistry } from './consumers/registry.ts'
import { noConsumers } from './consumers/registry.ts'
import type { PhaseHook, RouteHooks } from './route-hooks.ts'
import { checkHooks, hooksOfPhases } from './route-hooks.ts'
import { inShadow, isShadow, shadowRecorder } from './shadow.ts'

type Plugin = FastifyPluginAsync<Config> | FastifyPluginCallback<Config>

/** A route as the commands `routes` and `explain` see it. A plugin's own route may have no `match`: it serves any host. */
export type ShownRoute = Pick<EdgeRoute, 'edge'> & {
  readonly match?: Pick<RouteConfig['match'], 'hosts' | 'listeners'>
}

/** An entry of the edge's ordered list of concerns. */
export interface EdgeConcern {
  /** Name that `routes` and `explain` show. */
  readonly name: string
  /** Keys under `edge`; none for a concern that applies to every route. */
  readonly keys: readonly Key[]
  /** Fastify plugin, registered once per generation. */
  readonly plugin: Plugin
  /** Returns whether the concern is in force on a route. */
  readonly isOn: (route: ShownRoute, listeners: Config['listeners']) => boolean
  /** Returns what the concern would do with a request to a route; null if it has nothing to say. */
  readonly explain?: (route: ShownRoute, example: Example, gateway?: EdgePolicy) => string | null
  /** Returns facts for the OpenAPI document of a route; null if there are none. */
  readonly apiFacts?: (route: ShownRoute) => ApiFacts | readonly ApiFacts[] | null
  /** Returns whether the concern only counts its refusals on a route. Absent: it has no shadow mode. */
  readonly isShadow?: (route: ShownRoute, gateway: EdgePolicy) => boolean
  /** Reason why the concern has no shadow mode. */
  readonly noShadow?: string | undefined
  /** Effect on plugins' own routes: `always`; `asked`, if the route's `config.edge` or the plugin's `guarded` asks for it; `never`. */
  readonly ownRoutes: 'always' | 'asked' | 'never'
  /** Commands of the command line. */
  readonly commands?: readonly EdgeCommand[] | undefined
  /** Lines that `npm start` and `jingwei start` print: shell commands to try, and warnings. */
  readonly tries?: ((about: Started) => readonly string[]) | undefined
  readonly warnings?: ((config: Config) => readonly string[]) | undefined
}

/** A request that `explain` is asked about. */
export interface Example {
  readonly method: string
  /** Path and query. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  /** Address of the client. */
  readonly ip: string
  readonly consumer: Consumer | null
  /** Claims of the token. */
  readonly user: unknown
  /** The declared consumers, if they are known. */
  readonly consumers?: ConsumerRegistry | undefined
  /** Readings of paths, `listen.paths`. */
  readonly paths: Config['listen']['paths']
  /** Milliseconds since 1970. */
  readonly date: number
  /** Name of the route. */
  readonly route?: string | undefined
  /** The gateway, for state that concerns have decorated it with. */
  readonly gateway?: FastifyInstance | undefined
}

/** Dependencies that the plugin of a concern gets besides Fastify. */
export interface ConcernContext {
  readonly config: Config
  /** State that outlives a configuration. */
  readonly stores: Claims
  /** Makes metrics; without a metrics registry, these count nothing. */
  readonly meter: ConfigurationMeter
  readonly log: FastifyInstance['log']
  /** Time for limits and expiry. */
  readonly clock: Clock
  /** The declared consumers. */
  readonly consumers: ConsumerRegistry
  /** The concern as a method of authentication; undefined if it is none. */
  readonly authenticates: AuthenticationMethod | undefined
}

/** Returns the meter of a server; without one, a meter that counts nothing. */
export const meterOf = (fastify: FastifyInstance): ConfigurationMeter =>
  fastify.hasDecorator('meter') ? fastify.meter : unmetered

/** The clock that a server was given; else the system's. */
const clockOf = (fastify: FastifyInstance): Clock =>
  fastify.hasDecorator(CLOCK) ? fastify.getDecorator<Clock>(CLOCK) : systemClock

const consumersOf = (fastify: FastifyInstance): ConsumerRegistry =>
  fastify.hasDecorator('consumers') ? fastify.consumers : noConsumers

declare module 'fastify' {
  interface FastifyInstance {
    /** Makes a concern from the definition that a user's module exports. */
    edgeConcern: typeof edgeConcern
  }
}

/** Definition of a concern, as its author writes it. */
export interface EdgeDefinition<S extends TSchema = TSchema>
  extends Omit<Key, 'options' | 'forConsumers' | 'levels' | 'check' | 'complete' | 'isolate' | 'token' | 'ownPaths'> {
  /** Schema of the options. Its description is that of the key. A mapping gets the key `mode`, unless `noShadow` is set. */
  readonly options: S
  /** Reason why the concern has no shadow mode, such as that it refuses no request. */
  readonly noShadow?: string
  /** True if the hooks for options in shadow mode refuse nothing: then they are called as those of other options. */
  readonly shadowsItself?: true
  /** Levels at which the key can be set. Default: the gateway's and each route's. */
  readonly levels?: Key['levels']
  /** Lets consumers have options of their own (`consumers[].edge`), also on routes on which the concern is off. */
  readonly forConsumers?: ForConsumers
  /** Additional keys that the concern reads. */
  readonly more?: readonly Key[]
  /** Checks rules that the schema cannot express, for each value that fits it, and reports faults to `checked.report`. */
  check?(options: Exclude<Static<S>, false>, at: string, checked: Checked, place: Place): void
  /** Returns the options with absolute paths of files. */
  complete?(options: Exclude<Static<S>, false>, absolute: (path: string) => string): Static<S>
  /** Returns the options for a gateway under test, with which the concern needs no other program; false switches it off. */
  isolate?(options: Exclude<Static<S>, false>): Static<S> | false
  /** Returns paths that the concern serves itself, on the hosts and listeners of its routes. `routeOptions.config.ownPath` names them. */
  ownPaths?(options: Exclude<Static<S>, false>): readonly string[]
  /** Returns a token that the concern accepts with these options, for `gateway.token()` in tests. */
  token?(options: Exclude<Static<S>, false>, request: TokenRequest): string
  /** Returns what the concern would do with a request, for `explain`: `allows`. */
  explain?(options: Exclude<Static<S>, false>, example: Example): string | null
  /** Returns facts for the OpenAPI documents of the routes that enable the concern. In shadow mode it is not called. */
  apiFacts?(options: Exclude<Static<S>, false>): ApiFacts | readonly ApiFacts[]
  /** Effect on plugins' own routes: `always`; `asked`, if the route's `config.edge` or the plugin's `guarded` asks for it; `never`. Default: `asked`. */
  readonly ownRoutes?: EdgeConcern['ownRoutes']
  /** Commands of the command line. */
  readonly commands?: readonly EdgeCommand[]
  /** Returns shell commands to try, which are printed when the gateway has started. */
  tries?(about: Started): readonly string[]
  /** Returns warnings that are printed when the gateway has started. */
  warnings?(config: Config): readonly string[]
  /** Hooks for routes on which the concern is off. */
  readonly whenOff?: RouteHooks
  /**
   * Called once. Returns a function that is called for each route that enables the concern, with the options in force on
   * the route. That function returns the hooks of the route, or null for none. With `forConsumers` it is called again for the
   * options of a consumer, with the level `consumer`, while the gateway serves, also for routes on which the concern is off; then
   * it must not change the route.
   *
   * Errors of hooks before the response are counted. If the options have `mode: shadow`, they are only counted. A hook that
   * refuses a request by a response of its own calls `refused` to count it; with `mode: shadow` it calls `shadow` instead of
   * sending the response. `shadow` is null in every other mode.
   */
  plugin(
    fastify: FastifyInstance,
    context: ConcernContext
  ): Promise<
    (
      options: Exclude<Static<S>, false>,
      route: RouteOptions,
      shadow: RecordRefusal | null,
      refused: RecordRefusal,
      level: 'route' | 'consumer'
    ) => RouteHooks | null
  >
}

/** Returns the name that `routes` and `explain` show: `rate-limit` for `rateLimit`. */
const displayName = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** Makes a concern from its definition. */
export function edgeConcern<S extends TSchema>(definition: EdgeDefinition<S>): EdgeConcern {
  const {
    plugin,
    more = [],
    whenOff,
    commands,
    tries,
    warnings,
    explain,
    apiFacts,
    levels = gatewayAndRoute,
    forConsumers,
    ownRoutes = 'asked',
    noShadow,
    shadowsItself = false,
    ...key
  } = definition
  const optionsFor = ({ edge }: Pick<EdgeRoute, 'edge'>): Exclude<Static<S>, false> | null => {
    const options = Reflect.get(edge, key.name)
    return options === undefined || options === false ? null : options
  }
  const schemaOf = <T extends TSchema>(schema: T): T => (noShadow === undefined ? withMode(schema) : schema)
  const ofConsumer = forConsumers?.options && { options: schemaOf(forConsumers.options) }
  const schemas = { options: schemaOf(key.options), forConsumers: forConsumers && { ...forConsumers, ...ofConsumer } }
  return {
    name: displayName(key.name),
    keys: [{ ...key, ...schemas, levels: forConsumers ? [...levels, 'consumer'] : levels } as Key, ...more],
    noShadow,
    isOn: (route) => optionsFor(route) !== null,
    isShadow: (route) => isShadow(optionsFor(route)),
    apiFacts: (route) => {
      const options = optionsFor(route)
      return options === null || isShadow(options) ? null : (apiFacts?.call(definition, options) ?? null)
    },
    explain: (route, example) => {
      const options = optionsFor(route)
      const explained = (given: unknown) =>
        explain?.call(definition, given as Exclude<Static<S>, false>, example) ?? null
      if (forConsumers !== undefined) return explainFor(key.name, forConsumers, example, explained, options)
      return options === null ? null : explained(options)
    },
    ownRoutes,
    commands,
    tries,
    warnings,
    plugin: fp<Config>(
      async (fastify, config) => {
        // Already registered, unless a test or an embedding server registers the concern on its own.
        await fastify.register(stores, {})
        const { log, stores: claims } = fastify
        const [meter, clock, consumers] = [meterOf(fastify), clockOf(fastify), consumersOf(fastify)]
        const { authenticates } = definition
        const context = { config, stores: claims, meter, log, clock, consumers, authenticates }
        const hooksOf = await plugin(fastify, context)
        if (typeof hooksOf !== 'function')
          throw new Error(`plugin of concern ${key.name} returns no function for routes`)
        const overrides = new Overrides(fastify, config, key, forConsumers)
        fastify.addHook('onRoute', (routeOptions) => {
          const { config } = routeOptions
          const route = ownRoutes === 'never' ? config?.route : edgeRouteOf(config)
          if (route === undefined) return
          const name = displayName(key.name)
          const refused = refusalRecorder(meter, name, route.name)
          /** Returns the hooks for options; for null, those of a route on which the concern is off. */
          const hooksFor = (options: Exclude<Static<S>, false> | null, level: 'route' | 'consumer'): PhaseHook[] => {
            const shadow = isShadow(options) ? shadowRecorder(meter, name, route.name) : null
            const hooks = options === null ? (whenOff ?? null) : hooksOf(options, routeOptions, shadow, refused, level)
            checkHooks(key.name, hooks)
            return hooksOfPhases(hooks).map(([phase, hook]) => {
              if (!mayRefuse(phase)) return [phase, hook]
              return [
                phase,
                shadow === null || shadowsItself ? countingErrors(phase, hook, refused) : inShadow(hook, shadow)
              ]
            })
          }
          const own = optionsFor(route)
          const options = own ?? (overrides.neutralOn(routeOptions) as typeof own)
          overrides.attach(routeOptions, own !== null, hooksFor(options, 'route'), (options) =>
            hooksFor(options === false ? null : (options as typeof own), 'consumer')
          )
        })
      },
      { name: `jingwei-${displayName(key.name)}`, fastify: '5.x' }
    )
  }
}

/** Makes a concern that acts on all requests. */
export function globalConcern(
  name: string,
  plugin: Plugin,
  /** By default it has no keys, and is shown as in force on all routes. */
  more: Partial<Pick<EdgeConcern, 'keys' | 'isOn' | 'isShadow' | 'noShadow' | 'explain'>> = {}
): EdgeConcern {
  return { name, plugin, keys: [], isOn: () => true, ownRoutes: 'asked', ...more }
}
