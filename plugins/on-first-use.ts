import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

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

function load<T>(name: string): T {
  try {
    return require(name)
  } catch (cause) {
    const { code = 'failed' } = cause as NodeJS.ErrnoException
    const cure = 'if its files were replaced since the process started, restart the process'
    throw new Error(`cannot load the package ${name} (${code}): ${cure}`, { cause })
  }
}
