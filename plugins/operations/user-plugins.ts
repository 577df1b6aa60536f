import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import type { Config, PluginOptions } from '../../config/schema.ts'

/** Loads what the configuration names under `plugins:`, in its order, with its options. */
export default fp<Config>(
  async (fastify, config) => {
    for (const [index, named] of config.plugins.entries()) {
      const plugin = await load(named, config.file).catch((error: Error) => {
        const what = named.path ?? named.package
        throw new Error(`plugins[${index}]: cannot load ${what}: ${error.message}`, { cause: error })
      })
      // Hooks and decorators are meant for the gateway's routes, so no plugin gets a context of its own.
      await fastify.register(fp(plugin), { ...named.options })
    }
  },
  { name: 'jingwei-user-plugins', fastify: '5.x' }
)

async function load({ path, package: name }: PluginOptions, configFile: string): Promise<FastifyPluginAsync> {
  const url = path !== undefined ? pathToFileURL(path).href : resolvePackage(name!, configFile)
  const plugin: unknown = ((await import(url)) as { default?: unknown }).default
  if (typeof plugin !== 'function') throw new Error('it has no default export that is a Fastify plugin')
  return plugin as FastifyPluginAsync
}

/** As seen from the configuration's folder, else from the gateway's own. */
function resolvePackage(name: string, configFile: string): string {
  try {
    return pathToFileURL(createRequire(configFile).resolve(name)).href
  } catch {
    return name
  }
}
