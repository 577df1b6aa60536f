import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import fp from 'fastify-plugin'
import type { Config, PluginOptions } from '../../config/schema.ts'

/** Loads what the configuration names under `plugins:`, in its order, with its options. */
export default fp<Config>(
  async (fastify, config) => {
    for (const [index, named] of config.plugins.entries()) {
      const at = `plugins[${index}]`
      const what = named.path ?? named.package
      const plugin = await load(named, config.file).catch((error: unknown) => {
        throw because(`${at}: cannot load ${what}`, error)
      })
      try {
        await fastify.register(shared(plugin), { ...named.options })
      } catch (error) {
        throw because(`${at}: ${what} failed to start`, error)
      }
    }
  },
  { name: 'jingwei-user-plugins', fastify: '5.x' }
)

function because(what: string, error: unknown): Error {
  return new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
}

type AnyPlugin = FastifyPluginAsync | FastifyPluginCallback

/**
 * Hooks and decorators are meant for the gateway's routes, so a plugin gets no context of its own. One that
 * says for itself, by fastify-plugin, keeps what it says of its name, its dependencies and Fastify's version.
 */
function shared(plugin: AnyPlugin): FastifyPluginAsync {
  // Promised, since what a callback throws would end the process.
  const promised: FastifyPluginAsync = async (fastify, options) => {
    if (plugin.length < 3) return (plugin as FastifyPluginAsync)(fastify, options)
    await new Promise<void>((resolve, reject) => {
      const returned: unknown = plugin(fastify, options, (error) => (error ? reject(error) : resolve()))
      Promise.resolve(returned).catch(reject)
    })
  }
  const said = Object.getOwnPropertySymbols(plugin).map((symbol) => [symbol, Reflect.get(plugin, symbol)] as const)
  return said.length > 0 ? Object.assign(promised, Object.fromEntries(said)) : fp(promised, { name: plugin.name })
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
