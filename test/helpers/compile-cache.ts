// A compile cache for the processes of the tests: Node strips types and compiles a file once, rather than in each process.
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

const folder = resolve(import.meta.dirname, '../../.cache/compile')
/** Tests import files from temporary folders, whose cache entries are never read again. */
const mostFiles = 30_000

/** Returns the variable that switches the cache on; none for coverage, which is less precise for code from a cache. */
export function compileCache(): { NODE_COMPILE_CACHE?: string } {
  if (process.env.NODE_V8_COVERAGE) return {}
  return { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? folder }
}

/** Empties the cache if it has become large. Call it before any process uses the cache. */
export function trimCompileCache(): void {
  if (!existsSync(folder)) return
  const versions = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  const count = versions.reduce((sum, { name }) => sum + readdirSync(join(folder, name)).length, 0)
  if (count > mostFiles) rmSync(folder, { recursive: true, force: true })
}
