import { createRequire } from 'node:module'
import { isAbsolute } from 'node:path'
import { moduleFile } from './home.ts'

const require = createRequire(import.meta.url)

/** Runs each load; see `loadWithin`. */
let within = <T>(load: () => T): T => load()

/** Makes all loads run within a function, for the settings of a process that apply while modules are loaded. */
export function loadWithin(run: <T>(load: () => T) => T): void {
  within = run
}

/**
 * Returns a function that loads a CommonJS package with its first call, for packages that few configurations need: loading
 * them costs memory and start time. Uses `require`, since most callers are synchronous. Call it when the configuration is
 * built, so that a package that cannot be loaded is a fault of that configuration. It throws an error that names the package.
 */
export function onFirstUse<T>(name: string): () => T {
  let loaded: T | undefined
  return () => {
    loaded ??= load<T>(name)
    return loaded
  }
}

/**
 * Does the same for a module of this program, such as the half that a configuration does without. `source` is relative to
 * the folder of the program and has the extension `.mts`; see `mesh-half.mts`. The module and its imports must have no
 * top-level `await`.
 */
export const moduleOnFirstUse = <T>(source: string): (() => T) => onFirstUse<T>(moduleFile(source))

function load<T>(name: string): T {
  try {
    return within(() => require(name) as T)
  } catch (cause) {
    const { code = 'failed' } = cause as NodeJS.ErrnoException
    const cure = 'if its files were replaced since the process started, restart the process'
    const what = isAbsolute(name) ? name : `the package ${name}`
    throw new Error(`cannot load ${what} (${code}): ${cure}`, { cause })
  }
}
