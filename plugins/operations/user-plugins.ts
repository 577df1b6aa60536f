import { registerHooks } from 'node:module'
import { basename, extname } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import fp from 'fastify-plugin'
import type { Config, PluginOptions } from '../../config/schema.ts'
import { guardInstance, promised } from './guarded-instance.ts'

/** Loads what the configuration names under `plugins:`, in its order, with its options; what it adds is guarded. */
export default fp<Config>(
  async (fastify, config) => {
    const owners = fastify.faultOwners
    for (const [index, named] of config.plugins.entries()) {
      const at = `plugins[${index}]`
      const what = named.path ?? named.package!
      const plugin = await load(named, config.file).catch((error: unknown) => {
        throw because(`${at}: cannot load ${what}`, error)
      })
      const owner = { plugin: nameOf(plugin, what), contain: () => false, owners, hookTimeoutMs: named.hookTimeout }
      const release = guardInstance(fastify, owner, (error) => because(`${at}: ${what} failed to start`, error))
      try {
        await owners.load(owner, async () => fastify.register(shared(plugin), { ...named.options }))
      } catch (error) {
        throw because(`${at}: ${what} failed to start`, error)
      } finally {
        release()
      }
    }
  },
  { name: 'jingwei-user-plugins', fastify: '5.x' }
)

function because(what: string, error: unknown): Error {
  return new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
}

type AnyPlugin = FastifyPluginAsync | FastifyPluginCallback

/** Returns the plugin's own name, else that of its file or package. */
function nameOf(plugin: AnyPlugin, what: string): string {
  const said: unknown = Reflect.get(plugin, Symbol.for('fastify.display-name')) ?? plugin.name
  // The name of a default export without one.
  return typeof said === 'string' && said !== '' && said !== 'default' ? said : basename(what, extname(what))
}

/**
 * Hooks and decorators are meant for the gateway's routes, so a plugin gets no context of its own. One that
 * says for itself, by fastify-plugin, keeps what it says of its name, its dependencies and Fastify's version.
 */
function shared(plugin: AnyPlugin): FastifyPluginAsync {
  const safe = promised(plugin)
  return Object.getOwnPropertySymbols(safe).length > 0 ? safe : fp(safe, { name: plugin.name })
}

async function load({ path, package: name }: PluginOptions, configFile: string): Promise<AnyPlugin> {
  const module: unknown =
    path !== undefined ? await import(pathToFileURL(path).href) : await fromPackage(name!, configFile)
  const exported = (module as { default?: unknown }).default
  // CommonJS made from TypeScript has its default export one level down.
  const plugin = typeof exported === 'function' ? exported : (exported as { default?: unknown } | undefined)?.default
  if (typeof plugin !== 'function') throw new Error('it has no default export that is a Fastify plugin')
  return plugin as AnyPlugin
}

/** Imports a package as a module in the configuration's folder would, else as the gateway itself does. */
async function fromPackage(name: string, configFile: string): Promise<unknown> {
  const parentURL = pathToFileURL(configFile).href
  // Both in the specifier, since Node remembers what a specifier led to.
  const alias = `jingwei-plugin:${encodeURIComponent(name)}:${encodeURIComponent(parentURL)}`
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      if (specifier !== alias) return next(specifier, context)
      try {
        return next(name, { ...context, parentURL })
      } catch (error) {
        try {
          return next(name, { ...context, parentURL: import.meta.url })
        } catch {
          throw error
        }
      }
    }
  })
  try {
    return await import(alias)
  } finally {
    hooks.deregister()
  }
}
