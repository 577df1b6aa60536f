import type { FastifyRequest, RouteOptions } from 'fastify'
import { belowMount, paramNames, paramValues } from '../../../../config/path-pattern.ts'
import { ENCODED_SLASH, readPath } from '../../../../config/path-reading.ts'
import type { Texts } from './values.ts'

/** Returns the function that finds the parameters of a route's path, percent-encoded. */
export function pathTextsOf({ config }: RouteOptions): (request: FastifyRequest) => Texts {
  const pattern = config?.matchedPath
  if (pattern === undefined) return ({ params }) => textsOf(Object.entries(params as Record<string, string>))
  const names = paramNames(pattern)
  return ({ raw }) => {
    const read = readPath(belowMount(pattern, raw.url!))
    const values = read === null ? [] : paramValues(pattern, read)
    return textsOf(names.map((name, index) => [name, values[index] ?? '']))
  }
}

const textsOf = (pairs: readonly (readonly [string, string])[]): Texts =>
  new Map(
    pairs.map(([name, value]) => [name, [encodeURIComponent(value.toWellFormed().replaceAll(ENCODED_SLASH, '/'))]])
  )
