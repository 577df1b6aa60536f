/** Less than Fastify waits for a plugin, whose message would not name the module. */
const importMs = 8000

/** Rejects if a module, which may await anything, is not there in time. */
export async function inTime(module: Promise<unknown>): Promise<unknown> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, importMs, new Error(`its module has not loaded within ${importMs / 1000} s`))
  try {
    return await Promise.race([module, promise])
  } finally {
    clearTimeout(timer)
  }
}
