/** The maintenance mode on the admin port: its state by route, and the switches. The admin server decides who may ask. */
import type { FastifyBaseLogger, FastifyInstance, FastifyReply } from 'fastify'
import { didYouMean } from '../../../../config/nearest.ts'
import type { Config } from '../../../../config/schema.ts'
import type { RouteStates } from './states.ts'
import type { Scope, Switches } from './switches.ts'

export const actions: ReadonlyMap<string, boolean | null> = new Map([
  ['on', true],
  ['off', false],
  ['reset', null]
])

interface Pages {
  readonly config: Config
  readonly states: RouteStates
  readonly switches: Switches
  readonly log: FastifyBaseLogger
}

export function addPages(admin: FastifyInstance, { config, states, switches, log }: Pages): void {
  admin.get('/admin/maintenance', async () => ({ routes: states.list() }))

  for (const [action, state] of actions) {
    admin.post<{ Querystring: Readonly<Record<string, unknown>> }>(
      `/admin/maintenance/${action}`,
      async ({ query }, reply) => {
        const scope = scopeOf(query)
        if (typeof scope === 'string' && scope !== 'all') return refuse(reply, 400, scope)
        const routes = routesIn(scope, config, states)
        if (routes.length === 0) return refuse(reply, 404, unknown(scope, config))
        if (!routes.some((name) => states.has(name))) return refuse(reply, 409, withoutSettings(routes))
        switches.set(scope, state, routes)
        log.warn({ scope, routes }, `maintenance mode: ${action}, by the admin port`)
        const affected = new Set(routes)
        return {
          routes: states.list().filter(({ route }) => affected.has(route)),
          withoutMaintenance: routes.filter((name) => !states.has(name))
        }
      }
    )
  }
}

/** Returns the scope that a query names, or what is wrong with it. */
function scopeOf(query: Readonly<Record<string, unknown>>): Scope | string {
  const [given, ...more] = Object.entries(query)
  if (given === undefined || more.length > 0) return 'give one of route, group and all=true'
  const [name, value] = given
  if (name === 'all' && value === 'true') return 'all'
  if (typeof value === 'string' && value !== '') {
    if (name === 'route') return { route: value }
    if (name === 'group') return { group: value }
  }
  return `${name}: unknown, empty or given twice; give one of route, group and all=true`
}

/** Returns the names of the routes in a scope: configured ones, and those of plugins that use the concern. */
function routesIn(scope: Scope, { routes }: Config, states: RouteStates): string[] {
  if (scope !== 'all' && 'group' in scope) {
    return routes.filter(({ group }) => group === scope.group).map(({ name }) => name)
  }
  const all = [...new Set([...routes.map(({ name }) => name), ...states.names])]
  return scope === 'all' ? all : all.filter((name) => name === scope.route)
}

function unknown(scope: Scope, { routes }: Config): string {
  if (scope === 'all') return 'there are no routes'
  if ('route' in scope) {
    const names = routes.map(({ name }) => name)
    return `no route is named "${scope.route}"${didYouMean(scope.route, names)}`
  }
  const groups = [...new Set(routes.flatMap(({ group }) => group ?? []))]
  return `no route is in a group "${scope.group}"${didYouMean(scope.group, groups)}`
}

function withoutSettings(routes: readonly string[]): string {
  const which = routes.length === 1 ? `route ${routes[0]} does not have` : 'none of these routes has'
  return `${which} edge.maintenance; write maintenance: { enabled: false } to switch it on here later`
}

const refuse = (reply: FastifyReply, status: 400 | 404 | 409, message: string) =>
  reply.code(status).send({ statusCode: status, error: errors[status], message })

const errors = { 400: 'Bad Request', 404: 'Not Found', 409: 'Conflict' }
