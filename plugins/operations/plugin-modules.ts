/** Imports the modules that the configuration names under `plugins:`. */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import type { Key } from '../../config/concern.ts'
import { definitionFault, looksLikeConcern } from '../../config/concern-definition.ts'
import { inTime } from '../../config/in-time.ts'
import type { PluginOptions } from '../../config/schema.ts'
import type { PluginSourceKey } from '../../config/source-definition.ts'
import { looksLikeSource, sourceFault } from '../../config/source-definition.ts'
import { moduleFile } from '../home.ts'

export type AnyPlugin = FastifyPluginAsync | FastifyPluginCallback

/** Definition of a concern in a user's module: an edge concern has a `plugin`, a mesh concern a `layer`. */
export interface ConcernModule extends Omit<Key, 'levels'> {
  readonly levels?: Key['levels']
  /** Position, unless the configuration sets `plugins[].order`. */
  readonly order?: { readonly before?: string; readonly after?: string }
  readonly plugin?: unknown
  readonly layer?: unknown
  /** For a mesh concern: returns which requests it may send again. */
  readonly repeats?: unknown
}

/** A default export: a Fastify plugin, a concern, or a source of instances. */
export type Exported = AnyPlugin | ConcernModule | PluginSourceKey

export const isSource = (module: Exported): module is PluginSourceKey => looksLikeSource(module)
export const isConcern = (module: Exported): module is ConcernModule => typeof module === 'object' && !isSource(module)

/** The module of a plugin. */
export interface PluginModule {
  /** Its default export. */
  readonly exported: Exported
  /** Schemas of the keys of `routes[].config` that the plugin reads: the export of this name, or a property of the default export. */
  readonly routeConfig: unknown
  /** True if the file has changed since its code was loaded, which Node does once per process. */
  readonly hasChanged: boolean
}

/** Digest of each plugin's file when it was loaded, by path. Global, as Node's module cache is. */
const loaded = new Map<string, string>()

/** Returns the digest of a file; null for a path that is not a regular file: reading a pipe would block. */
async function digestOf(path: string): Promise<string | null> {
  const isFile = await stat(path).then(
    (stats) => stats.isFile(),
    () => false
  )
  return isFile
    ? createHash('sha256')
        .update(await readFile(path))
        .digest('base64')
    : null
}

/** Imports a plugin's file or package. */
export async function importPlugin(
  { path, package: name }: Pick<PluginOptions, 'path' | 'package'>,
  configFile: string
): Promise<PluginModule> {
  const digest = path === undefined ? null : await digestOf(path).catch(() => null)
  const module = await inTime(path !== undefined ? fromPath(path) : fromPackage(name!, configFile))
  const before = path === undefined ? undefined : loaded.get(path)
  if (path !== undefined && digest !== null && before === undefined) loaded.set(path, digest)
  const hasChanged = digest !== null && before !== undefined && before !== digest
  const { default: exported, routeConfig } = module as { default?: unknown; routeConfig?: unknown }
  // CommonJS that was compiled from TypeScript has its default export at `default.default`.
  const inner = (exported as { default?: unknown } | undefined)?.default
  const candidates: unknown[] = [exported, inner]
  const defines = (value: unknown): value is object => looksLikeSource(value) || looksLikeConcern(value)
  const found = candidates.find((each) => typeof each === 'function') ?? candidates.find(defines)
  if (found === undefined) {
    throw new Error('it has no default export that is a Fastify plugin, a concern or a source of instances')
  }
  const fault =
    typeof found === 'function' ? null : looksLikeSource(found) ? sourceFault(found) : definitionFault(found)
  if (fault !== null) throw new Error(fault)
  const declared = routeConfig ?? (found as { routeConfig?: unknown }).routeConfig
  return { exported: found as Exported, routeConfig: declared, hasChanged }
}

/** Entry of the package for plugins. */
const helpers = 'jingwei/plugin'
const ownHelpers = moduleFile('plugins/plugin-api.ts')

let isProvided = false

/**
 * Makes `jingwei/plugin` that of this gateway, for files that cannot find the package, as beside a checkout. Once per process
 * and for as long as that runs: a plugin may import it late, and a module that was loaded stays in Node's cache as well.
 */
function provideHelpers(): void {
  if (isProvided) return
  isProvided = true
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier !== helpers) return next(specifier, context)
      try {
        return next(specifier, context)
      } catch {
        // `require` takes paths, `import` URLs.
        return next(context.conditions.includes('require') ? ownHelpers : pathToFileURL(ownHelpers).href, context)
      }
    }
  })
}

/**
 * Imports a module of a user. If its file has changed since it was loaded, it is loaded again, under another URL: Node keeps
 * modules by their URL. Modules that it imports are not loaded again.
 */
export async function importLatest(path: string): Promise<unknown> {
  provideHelpers()
  const digest = (await digestOf(path)) ?? ''
  const before = loaded.get(path)
  if (before === undefined) loaded.set(path, digest)
  const query = before === undefined || before === digest ? '' : `?${encodeURIComponent(digest)}`
  return inTime(import(pathToFileURL(path).href + query))
}

async function fromPath(path: string): Promise<unknown> {
  provideHelpers()
  return import(pathToFileURL(path).href)
}

/** Imports a package, resolved from the configuration's folder, else from the gateway. */
async function fromPackage(name: string, configFile: string): Promise<unknown> {
  const parentURL = pathToFileURL(configFile).href
  // The specifier contains both, since Node caches resolutions by specifier.
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
