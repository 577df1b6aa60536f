import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { FaultOwners, PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-hook.ts'
import { guardRoute } from './guarded-hook.ts'
import type { PluginRecord } from './plugin-record.ts'

const decorated = { decorate: 'the server', decorateRequest: 'requests', decorateReply: 'replies' } as const
type Method = keyof typeof decorated

/**
 * Watches what can be claimed once: the names of decorators, and the handler of requests that no route takes. A second
 * claim fails with a message that names both sides. Covers what the gateway claims after the plugins, until the returned
 * function is called.
 */
export function guardClaims(fastify: FastifyInstance, owners: FaultOwners): () => void {
  const before = Object.getOwnPropertyDescriptors(fastify)
  const methods = Object.keys(decorated) as Method[]
  for (const method of methods) watchDecorators(fastify, method, owners)
  watchNotFound(fastify, owners)
  return () => {
    for (const name of [...methods, 'setNotFoundHandler'] as const) {
      if (before[name] === undefined) Reflect.deleteProperty(fastify, name)
      else Object.defineProperty(fastify, name, before[name])
    }
  }
}

function watchDecorators(fastify: FastifyInstance, method: Method, owners: FaultOwners): void {
  const original: Code = fastify[method]
  /** Plugins that hold a name; the gateway or Fastify holds all others. */
  const holders = new Map<unknown, PluginOwner>()
  Object.assign(fastify, {
    [method](this: FastifyInstance, name: unknown, ...more: unknown[]): unknown {
      const claimant = owners.loading
      try {
        const result: unknown = Reflect.apply(original, this, [name, ...more])
        if (this === fastify && claimant !== null) holders.set(name, claimant)
        return result
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'FST_ERR_DEC_ALREADY_PRESENT') throw error
        throw twice(`the decorator "${String(name)}" of ${decorated[method]}`, claimant, holders.get(name), error)
      }
    }
  })
}

/** Makes the error of a second claim. */
function twice(what: string, claimant: PluginOwner | null, holder: PluginOwner | undefined, cause: unknown): Error {
  if (claimant === null) {
    const message = `${what} is needed by the gateway, and plugin ${holder?.plugin} has taken it`
    return holder === undefined ? (cause as Error) : holder.fault(message, cause)
  }
  const other =
    holder === undefined ? 'the gateway' : holder === claimant ? 'the plugin itself' : `plugin ${holder.plugin}`
  return new Error(`it wants ${what}, which ${other} has taken`, { cause })
}

/** Names the plugin that has the route already, in the error of a second one; returns other errors as they are. */
export function claimedRoute(error: unknown, claimant: PluginOwner, { routes }: PluginRecord): unknown {
  if ((error as { code?: unknown } | null)?.code !== 'FST_ERR_DUPLICATED_ROUTE') return error
  const refused = routes.findLast(({ owner }) => owner === claimant)!
  const methods = [refused.route.method].flat()
  const holder = routes.find((other) => {
    const { url, method } = other.route
    return other !== refused && url === refused.route.url && [method].flat().some((each) => methods.includes(each))
  })
  return twice(`the route ${methods.join(',')} ${refused.route.url}`, claimant, holder?.owner, error)
}

type NotFoundOptions = Pick<RouteOptions, 'preValidation' | 'preHandler'>
type NotFoundHandler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => unknown

/**
 * Lets a plugin handle the requests for which the gateway has no route. The gateway's own handler goes first: it tells
 * a wrong method or a wrong host from a wrong path.
 */
function watchNotFound(fastify: FastifyInstance, owners: FaultOwners): void {
  const original: Code = fastify.setNotFoundHandler
  let own: { owner: PluginOwner; options: NotFoundOptions; handler: NotFoundHandler } | null = null
  Object.assign(fastify, {
    setNotFoundHandler(
      this: FastifyInstance,
      ...args: [NotFoundOptions, NotFoundHandler] | [NotFoundHandler]
    ): unknown {
      const owner = owners.loading
      // A context below a prefix has a handler of its own.
      if (this.prefix !== fastify.prefix) return Reflect.apply(original, this, args)
      const [options, handler] = args.length === 1 ? [{}, args[0]] : args
      if (owner === null) {
        const { options: hooks, handler: last } = own ?? { options: {}, handler: null }
        return Reflect.apply(original, this, [hooks, last === null ? handler : inTurn(handler, last)])
      }
      if (own !== null) throw twice('the not-found handler', owner, own.owner, undefined)
      const route = { ...options, handler: handler.bind(this) } as RouteOptions
      guardRoute(route, owner)
      const { handler: guarded, ...hooks } = route
      own = { owner, options: hooks, handler: guarded as NotFoundHandler }
      return this
    }
  })
}

function inTurn(first: NotFoundHandler, second: NotFoundHandler): NotFoundHandler {
  return function notFound(request, reply) {
    try {
      return Reflect.apply(first, this, [request, reply])
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'JW_NO_ROUTE') throw error
      return Reflect.apply(second, this, [request, reply])
    }
  }
}
