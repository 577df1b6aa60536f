/** Time limit, shorter than Fastify's for a plugin, whose message would not name the module. */
const importMs = 8000

/** Awaits the import of a module. Rejects if it takes too long, since a module may await anything at its top level. */
export async function inTime(module: Promise<unknown>): Promise<unknown> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, importMs, new Error(`its module has not loaded within ${importMs / 1000} s`))
  try {
    return await Promise.race([module, promise])
  } finally {
    clearTimeout(timer)
  }
}
