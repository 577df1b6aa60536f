/** Header fields of a request that a signature covers: the service must get what was signed, and nothing besides it. */
import type { FastifyRequest } from 'fastify'
import { canonicalName } from '../../../config/header-names.ts'
import { nominated } from '../protocol/headers.ts'

interface Field {
  /** In lower case. */
  readonly name: string
  readonly values: string[]
  hasOtherSpelling: boolean
}

/** The fields of one request, read once: a signature may name many of them. */
export class SignedFields {
  readonly #fields = new Map<string, Field>()
  readonly #removed: ReadonlySet<string> | null
  readonly #authority: string

  constructor({ raw: { rawHeaders, headers } }: FastifyRequest) {
    this.#removed = nominated(headers.connection)
    this.#authority = (headers[':authority'] as string | undefined) ?? headers.host ?? ''
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const name = rawHeaders[i]!.toLowerCase()
      const canonical = canonicalName(name)
      const field = this.#fields.get(canonical)
      if (field === undefined) {
        this.#fields.set(canonical, { name, values: [rawHeaders[i + 1]!], hasOtherSpelling: false })
      } else if (field.name === name) field.values.push(rawHeaders[i + 1]!)
      else field.hasOtherSpelling = true
    }
  }

  /** The client's authority, from `:authority` or `Host`. */
  get authority(): string {
    return this.#authority
  }

  /**
   * Returns the values of a field, one for each line; null if the service could read another value than the signed one: from a
   * field whose name is spelt in another way (`x_user`), or because `Connection` names the field, so that the gateway removes
   * it. `name` is in lower case.
   */
  valuesOf(name: string): readonly string[] | null {
    const field = this.#fields.get(canonicalName(name))
    if (field === undefined) return []
    return field.hasOtherSpelling || field.name !== name || this.#removed?.has(name) ? null : field.values
  }
}
