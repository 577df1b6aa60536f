import type { FastifyInstance, FastifyPluginAsync, FastifyPluginCallback, RouteOptions } from 'fastify'
import { ConfigError } from '../../config/faults.ts'
import { asError } from '../thrown.ts'
import { CloseFailure } from './close-failure.ts'
import type { PluginOwner } from './fault-owners.ts'
import type { Code } from './guarded-handler.ts'
import { guardedErrorHandler } from './guarded-handler.ts'
import { callbackAt, guardedHook, guardHooksOf, hooksOf, isRequestHook } from './guarded-hook.ts'
import type { PluginPlacement } from './plugin-placement.ts'

/** Time limit for an `onClose` hook. */
const closeMs = 10_000

/**
 * Guards the hooks and the plugins that a plugin adds to the instance or to its child instances, until the returned function
 * is called. With a placement, hooks of the instance go there. `named` creates the error that stops the start.
 */
export function guardInstance(
  fastify: FastifyInstance,
  owner: PluginOwner,
  placement: PluginPlacement | null,
  named: (error: unknown) => Error
): () => void {
  const { addHook, decorate, register } = fastify
  const setErrorHandler: Code = fastify.setErrorHandler
  const before = Object.getOwnPropertyDescriptors(fastify)

  /** Returns the guarded hook. A hook that Fastify would reject is returned unchanged, so that Fastify rejects it. */
  function guard(name: string, hook: Code): Code {
    const isAsync = hook.constructor.name === 'AsyncFunction'
    if (name === 'onRoute') return onRoute(hook)
    if (name === 'onReady') return isAsync && hook.length > 0 ? hook : onReady(hook)
    if (name === 'onClose') return isAsync && hook.length > 1 ? hook : onClose(hook)
    if (!isRequestHook(name)) return hook
    const isRefused = name === 'onRequestAbort' ? hook.length !== 1 : hook.length > callbackAt(name)
    return isAsync && isRefused ? hook : guardedHook(name, hook, owner)
  }

  function onRoute(hook: Code): Code {
    return function guarded(this: unknown, route: RouteOptions): void {
      const others = hooksOf(route)
      try {
        Reflect.apply(hook, this, [route])
      } catch (error) {
        throw named(error)
      }
      for (const hook of guardHooksOf(route, others, owner)) fastify.pluginRecord.addRouteHook(owner, hook, route)
    }
  }

  function onReady(hook: Code): Code {
    // Shorter than Fastify's own timeout, whose message would not name the plugin.
    const limitMs = (fastify.initialConfig.pluginTimeout ?? 0) - 1000
    return async function guarded(this: unknown): Promise<void> {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const done = (error?: unknown) => (error ? reject(error) : resolve())
      const late = () => reject(new Error(`its onReady hook has not ended within ${limitMs / 1000} s`))
      const timer = limitMs > 0 ? setTimeout(late, limitMs) : undefined
      try {
        const result = owner.owners.run(
          owner,
          () => Reflect.apply(hook, this, hook.length === 1 ? [done] : []) as unknown
        )
        await (hook.length === 1 ? promise : Promise.race([result, promise]))
      } catch (error) {
        throw named(error)
      } finally {
        clearTimeout(timer)
      }
    }
  }

  /**
   * Adds a time limit to an `onClose` hook; without it, other plugins and the end of the process could wait forever.
   * Logs and records a failure here: Fastify reports only the first one when several hooks fail.
   */
  function onClose(hook: Code): Code {
    return async function guarded(this: unknown, instance: unknown): Promise<void> {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const done = (error?: unknown) => (error ? reject(error) : resolve())
      const timer = setTimeout(() => {
        const message = `its onClose hook has not ended within ${closeMs / 1000} s; going on without it`
        const late = owner.fault(message)
        if (late instanceof ConfigError) fastify.pluginRecord.warnings.push(...late.faults)
        fastify.log.error({ plugin: owner.plugin }, `plugin ${owner.plugin}: ${message}`)
        resolve()
      }, closeMs)
      try {
        const args = hook.length > 1 ? [instance, done] : [instance]
        const result = owner.owners.run(owner, () => Reflect.apply(hook, this, args) as unknown)
        await (hook.length > 1 ? promise : Promise.race([result, promise]))
      } catch (error) {
        const err = asError(error)
        const failure = new CloseFailure(owner.plugin, err)
        fastify.log.error({ plugin: owner.plugin, hook: 'onClose', err }, failure.message)
        const fault = owner.fault(`${owner.plugin} failed in onClose: ${err.message}`, err)
        if (fault instanceof ConfigError) fastify.pluginRecord.closeFaults.push(...fault.faults)
        throw failure
      } finally {
        clearTimeout(timer)
      }
    }
  }

  Object.assign(fastify, {
    addHook(this: FastifyInstance, name: string, hook: unknown) {
      const guarded = typeof hook === 'function' ? guard(name, hook) : hook
      // A hook that Fastify would reject goes to Fastify, which rejects it.
      const isPlaced = placement !== null && this === fastify && typeof guarded === 'function' && guarded !== hook
      if (isPlaced && name === 'onRoute') placement.addOnRoute(guarded)
      else if (isPlaced && isRequestHook(name)) placement.addHook(name, guarded)
      else {
        Reflect.apply(addHook, this, [name, guarded])
        if (this !== fastify && (isRequestHook(name) || name === 'onRoute')) fastify.pluginRecord.noteHooked(owner)
        if (isRequestHook(name)) {
          if (this === fastify) fastify.pluginRecord.addHook(owner, name)
          else fastify.pluginRecord.addContextHook(owner, name, this)
        }
        if (name === 'onReady')
          fastify.pluginRecord.readyHooks.push(async () => Reflect.apply(guarded as Code, this, []))
      }
      return this
    },
    decorate(this: FastifyInstance, ...args: [name: string, value: unknown, dependencies?: string[]]) {
      // A plugin may replace the gateway's `metrics` decorator, and no other, because fastify-metrics adds one of this name.
      const isFree = args[0] === 'metrics' && Object.hasOwn(this, 'metrics') && this.metrics === this.meter.registry
      if (isFree) Reflect.deleteProperty(this, 'metrics')
      return Reflect.apply(decorate, this, args)
    },
    setErrorHandler(this: FastifyInstance, handler: unknown) {
      const guarded = typeof handler === 'function' ? guardedErrorHandler(handler, owner) : handler
      return Reflect.apply(setErrorHandler, this, [guarded])
    },
    register(this: FastifyInstance, plugin: unknown, ...options: unknown[]) {
      return Reflect.apply(register, this, [anyPromised(plugin), ...options])
    }
  })
  return () => {
    for (const name of ['addHook', 'decorate', 'register', 'setErrorHandler'] as const) {
      if (before[name] === undefined) Reflect.deleteProperty(fastify, name)
      else Object.defineProperty(fastify, name, before[name])
    }
  }
}

/** Wraps everything that Fastify accepts as a plugin: a function, a promise of one, or a module with a default export. */
function anyPromised(plugin: unknown): unknown {
  if (typeof plugin === 'function') return promised(plugin as FastifyPluginAsync | FastifyPluginCallback)
  if (typeof plugin !== 'object' || plugin === null) return plugin
  if ('then' in plugin) return (plugin as PromiseLike<unknown>).then(anyPromised)
  return 'default' in plugin ? anyPromised(plugin.default) : plugin
}

/** Wraps a plugin as an async one, with the marks of fastify-plugin. What a callback plugin throws later would end the process. */
export function promised(plugin: FastifyPluginAsync | FastifyPluginCallback): FastifyPluginAsync {
  const safe: FastifyPluginAsync = (fastify, options) =>
    new Promise<void>((resolve, reject) => {
      // The callback is always passed: `length` does not count parameters with default values and those after them.
      const returned: unknown = plugin(fastify, options, (error) => (error ? reject(error) : resolve()))
      if (plugin.length < 3) resolve(returned as PromiseLike<void>)
      else Promise.resolve(returned).catch(reject)
    })
  const marks = Object.getOwnPropertySymbols(plugin).map((mark) => [mark, Reflect.get(plugin, mark)] as const)
  return Object.defineProperty(Object.assign(safe, Object.fromEntries(marks)), 'name', { value: plugin.name })
}
