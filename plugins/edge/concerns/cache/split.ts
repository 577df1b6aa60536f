/** The conditions of a split, which choose a version of the service behind the cache: they are a part of the key. */
import type { FastifyRequest } from 'fastify'
import type { RouteConfig } from '../../../../config/schema.ts'
import { cookieValues } from '../../authentication/credentials.ts'

export interface SplitKey {
  /** Names of headers, in lower case. */
  readonly headers: readonly string[]
  /** Returns the other values of a request that the conditions read. */
  values(request: FastifyRequest): readonly string[]
}

export function splitKey({ mesh }: Pick<RouteConfig, 'mesh'>): SplitKey {
  const matches = (mesh.split ?? []).flatMap(({ match }) => match ?? [])
  const cookies = [...new Set(matches.flatMap(({ cookies = {} }) => Object.keys(cookies)))]
  const byConsumer = matches.some(({ consumers }) => consumers !== undefined)
  return {
    headers: matches.flatMap(({ headers = {} }) => Object.keys(headers).map((name) => name.toLowerCase())),
    values: (request) => [
      ...cookies.map((name) => cookieValues(request, name).join('\n')),
      ...(byConsumer ? [request.consumer?.id ?? ''] : [])
    ]
  }
}
