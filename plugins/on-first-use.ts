import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/**
 * Returns a function that loads a CommonJS package with its first call, for packages that few configurations need: loading
 * them costs memory and start time. Uses `require`, since most callers are synchronous.
 */
export function onFirstUse<T>(name: string): () => T {
  let loaded: T | undefined
  return () => {
    loaded ??= require(name) as T
    return loaded
  }
}
