/** Header fields of a request that a signature covers: the service must get what was signed, and nothing besides it. */
import type { FastifyRequest } from 'fastify'
import { canonicalName } from '../../../config/header-names.ts'
import { nominated } from '../protocol/headers.ts'

/**
 * Returns the values of a field, one for each line; null if the service could read another value than the signed one: from a
 * field whose name is spelt in another way (`x_user`), or because `Connection` names the field, so that the gateway removes it.
 * `name` is in lower case.
 */
export function signedValues({ raw }: FastifyRequest, name: string): string[] | null {
  const { rawHeaders, headers } = raw
  const canonical = canonicalName(name)
  const values: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const given = rawHeaders[i]!
    if (given.length !== name.length || canonicalName(given) !== canonical) continue
    if (given.toLowerCase() !== name) return null
    values.push(rawHeaders[i + 1]!)
  }
  return values.length > 0 && nominated(headers.connection)?.has(name) ? null : values
}

/** Returns the client's authority, from `:authority` or `Host`. */
export const authorityOf = ({ raw: { headers } }: FastifyRequest): string =>
  (headers[':authority'] as string | undefined) ?? headers.host ?? ''
