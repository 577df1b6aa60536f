/** Imports the modules that the configuration names under `plugins:`. */
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import type { PluginOptions } from '../../config/schema.ts'

export type AnyPlugin = FastifyPluginAsync | FastifyPluginCallback

/** Returns the default export of a plugin's file or package. */
export async function importPlugin(
  { path, package: name }: Pick<PluginOptions, 'path' | 'package'>,
  configFile: string
): Promise<AnyPlugin> {
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
