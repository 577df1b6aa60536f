/** Finds the operation of a document for a request. */
import type { FastifyRequest, RouteOptions } from 'fastify'
import type { PathReadings } from '../../../../config/path-reading.ts'
import { targetPath } from '../../protocol/target-path.ts'
import type { Found } from './guard.ts'
import type { Document } from './openapi.ts'
import type { ValidationOptions } from './options.ts'
import { Refusal } from './refusals.ts'

/** Returns the function that finds the operation of a request to a route; it returns null for a request that is not checked. */
export function operationFinder(
  { tree }: Document,
  { describes, undocumented, responses }: ValidationOptions,
  { config }: RouteOptions,
  paths: PathReadings
): (request: FastifyRequest) => Found | null {
  const { route, matchedPath } = config ?? {}
  const isRewritten = describes === 'service' && route !== undefined && matchedPath !== undefined
  const rewrite = isRewritten ? targetPath(route, matchedPath, paths) : null
  const passes = undocumented === 'pass'
  return ({ raw, method }) => {
    const target = rewrite === null ? raw.url! : rewrite(raw.url!)
    const query = target.indexOf('?')
    const pathname = query === -1 ? target : target.slice(0, query)
    let found = tree.find(pathname, method)
    if (method === 'HEAD' && !found?.methods.has(method)) found = tree.find(pathname, 'GET')
    if (found === null) {
      if (passes) return null
      throw new Refusal('validation_unknown_path', 'The API has no such path')
    }
    const { methods, path } = found
    const operation = methods.get(method) ?? (method === 'HEAD' ? methods.get('GET') : undefined)
    if (operation !== undefined)
      return { operation, path, ...(responses !== false && { responses: operation.responses }) }
    if (passes) return null
    const allow = [...methods.keys(), ...(methods.has('GET') && !methods.has('HEAD') ? ['HEAD'] : [])].join(', ')
    throw new Refusal('validation_unknown_method', 'The API does not have this method for the path', [], { allow })
  }
}
