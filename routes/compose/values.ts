/** Values of references while a composed request is served. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Reference } from '../../config/compose/template.ts'
import { allAt, valueAt } from '../../config/json-pointer.ts'
import { BadInput, WrongShape } from './errors.ts'
import type { CachedPart } from './freshness.ts'
import { textOfNumber } from './raw-number.ts'

/** A response that a call received. */
export interface Received {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly caching: CachedPart
  /** The body: parsed JSON, or a string. Null if it was empty. */
  readonly body: unknown
}

/** The values to which references refer. */
export interface Scope {
  readonly request: FastifyRequest
  /** The request body as JSON; undefined if no template uses it, or if it is empty. */
  readonly body: unknown
  /** Responses by the index of their call; null for a call that failed or has not ended. */
  readonly responses: (Received | null)[]
}

/** Dependencies of compiled templates. */
export interface TemplateDeps {
  /** Returns the index of a call by its name. */
  readonly indexOf: (call: string) => number
  /** Returns whether clients' copies of a header are removed, since services trust it. */
  readonly isDropped: (header: string) => boolean
}

/** Reads the value of a reference; undefined if it is missing. */
type Read = (scope: Scope) => unknown

/** A reference, compiled. */
export interface Value {
  readonly read: Read
  /** Returns the error for a value that cannot be used: 400 for values of the request, 502 for those of a response. */
  readonly fault: (why: string) => Error
  /** Returns whether the value is missing because its call has failed. */
  readonly hasFailed: (scope: Scope) => boolean
}

/** Compiles a reference. */
export function compileReference({ source, substitute, text }: Reference, deps: TemplateDeps): Value {
  const read = reader(source, deps)
  const index = source.of === 'call' && substitute === null ? deps.indexOf(source.call) : null
  return {
    hasFailed: ({ responses }) => index !== null && responses[index] === null,
    read: substitute === null ? read : (scope) => read(scope) ?? substitute,
    fault: (why) =>
      source.of === 'call' ? new WrongShape(source.call, `{${text}} ${why}`) : new BadInput(`{${text}}`, why)
  }
}

function reader(source: Reference['source'], { indexOf, isDropped }: TemplateDeps): Read {
  switch (source.of) {
    case 'params':
    case 'query': {
      const { of, name } = source
      return ({ request }) => valueAt(request[of], [name])
    }
    case 'headers': {
      const { name } = source
      return ({ request }) => (isDropped(name) ? undefined : request.headers[name])
    }
    case 'consumer':
      return ({ request }) => request.consumer?.id
    case 'claims': {
      const { members } = source
      return ({ request }) => allAt(Reflect.get(request, 'user'), members) ?? undefined
    }
    case 'body': {
      const { members } = source
      return ({ body }) => allAt(body, members)
    }
    case 'call': {
      const index = indexOf(source.call)
      if (source.take === 'status') return ({ responses }) => responses[index]?.status
      if (source.take === 'header') return ({ responses }) => responses[index]?.headers[source.name]
      return ({ responses }) => allAt(responses[index]?.body, source.members)
    }
  }
}

/** Returns a value as text; undefined for values that have no single text: null, lists and objects. */
export function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : textOfNumber(value)
}
