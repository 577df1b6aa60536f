import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler, RouteOptions } from 'fastify'
import type { FaultOwners, PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-handler.ts'
import { guardRoute } from './guarded-hook.ts'
import type { PluginRecord } from './plugin-record.ts'

const decorated = { decorate: 'the server', decorateRequest: 'requests', decorateReply: 'replies' } as const
type Method = keyof typeof decorated

/**
 * Watches claims that can be made only once: names of decorators, and the not-found handler. A second claim fails with a
 * message that names both claimants. Also covers claims of the gateway after the plugins, until the returned function is
 * called.
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
  /** Plugins by the decorator that they added; all others belong to the gateway or Fastify. */
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
        throw conflictError(
          `the decorator "${String(name)}" of ${decorated[method]}`,
          claimant,
          holders.get(name),
          error
        )
      }
    }
  })
}

/** Creates the error for a second claim. */
function conflictError(
  what: string,
  claimant: PluginOwner | null,
  holder: PluginOwner | undefined,
  cause: unknown
): Error {
  if (claimant === null) {
    const message = `${what} is used by the gateway, but plugin ${holder?.plugin} has added it already`
    return holder === undefined ? (cause as Error) : holder.fault(message, cause)
  }
  const other =
    holder === undefined ? 'the gateway' : holder === claimant ? 'the plugin itself' : `plugin ${holder.plugin}`
  return new Error(`it adds ${what}, which ${other} has added already`, { cause })
}

/** Replaces Fastify's error for a duplicate route by one that names both plugins; returns other errors unchanged. */
export function claimedRoute(error: unknown, claimant: PluginOwner, { routes }: PluginRecord): unknown {
  if ((error as { code?: unknown } | null)?.code !== 'FST_ERR_DUPLICATED_ROUTE') return error
  const refused = routes.findLast(({ owner }) => owner === claimant)!
  const methods = [refused.route.method].flat()
  const holder = routes.find((other) => {
    const { url, method } = other.route
    return other !== refused && url === refused.route.url && [method].flat().some((each) => methods.includes(each))
  })
  return conflictError(`the route ${methods.join(',')} ${refused.route.url}`, claimant, holder?.owner, error)
}

type NotFoundHandler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => unknown
type NotFoundArgs =
  | [options?: Pick<RouteOptions, 'preValidation' | 'preHandler'>, handler?: NotFoundHandler]
  | [handler: NotFoundHandler]

/**
 * Lets a plugin handle requests that match no route. The gateway's own handler runs first and keeps the responses to a wrong
 * method (405) or host (421). An encapsulated context with a prefix can have its own handler.
 */
function watchNotFound(fastify: FastifyInstance, owners: FaultOwners): void {
  const original: Code = fastify.setNotFoundHandler
  let own: { owner: PluginOwner; route: RouteOptions } | null = null
  Object.assign(fastify, {
    setNotFoundHandler(this: FastifyInstance, ...args: NotFoundArgs): unknown {
      const owner = owners.loading
      const isBelow = this.prefix !== fastify.prefix
      const [options, handler] = typeof args[0] === 'function' ? [{}, args[0]] : [args[0] ?? {}, args[1]]
      if (handler === undefined) return Reflect.apply(original, this, args)
      if (owner === null && (isBelow || own === null)) {
        const guarded = { ...options } as RouteOptions
        fastify.guardRepliesOf(guarded)
        return Reflect.apply(original, this, [guarded, handler])
      }
      if (owner === null) return Reflect.apply(original, this, notFoundArgs(own!.route, handler))
      if (!isBelow && own !== null) throw conflictError('the not-found handler', owner, own.owner, undefined)
      const route = {
        ...options,
        method: [...this.supportedMethods],
        url: `${this.prefix}/*`,
        config: owner.guarded ? { guarded: true } : {},
        handler: handler.bind(this)
      } as RouteOptions
      guardRoute(route, owner)
      fastify.pluginRecord.noteNotFoundHandler(owner)
      if (owner.guarded) this.attachToNotFound(route)
      fastify.guardRepliesOf(route)
      if (isBelow) return Reflect.apply(original, this, notFoundArgs(route, null))
      own = { owner, route }
      return this
    }
  })
}

/** Returns the arguments for Fastify, which accepts all route hooks here. `first` runs before hooks and handler. */
function notFoundArgs(route: RouteOptions, first: NotFoundHandler | null): [Partial<RouteOptions>, NotFoundHandler] {
  const { method: _method, url: _url, handler, ...options } = route
  const last = handler as NotFoundHandler
  if (first === null) return [options, last]
  // Otherwise a concern of a guarded handler would refuse a request before the gateway responds 405.
  const isGuarded = route.config?.guarded === true
  return [
    isGuarded ? { ...options, onRequest: hooksAfter(first, route.onRequest) } : options,
    withFallback(first, last)
  ]
}

function hooksAfter(first: NotFoundHandler, hooks: RouteOptions['onRequest']): onRequestHookHandler[] {
  const onRequest: onRequestHookHandler = function (request, reply, done) {
    const pass: NotFoundHandler = () => done()
    try {
      Reflect.apply(withFallback(first, pass), this, [request, reply])
    } catch (error) {
      done(error as Error)
    }
  }
  return [onRequest, ...[hooks ?? []].flat()] as onRequestHookHandler[]
}

function withFallback(first: NotFoundHandler, second: NotFoundHandler): NotFoundHandler {
  return function notFound(request, reply) {
    try {
      return Reflect.apply(first, this, [request, reply])
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'JW_NO_ROUTE') throw error
      return Reflect.apply(second, this, [request, reply])
    }
  }
}
