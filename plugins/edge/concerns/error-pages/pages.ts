import type { FastifyRequest } from 'fastify'
import { readSmall } from '../../../../config/content.ts'
import { STATUS_CODES } from '../../../node-http.ts'
import type { ErrorBodies, ErrorBody, ToldError } from '../../error-bodies.ts'
import { problemOf } from '../../error-bodies.ts'
import { preferred } from './accept.ts'
import type { PageValues } from './template.ts'
import { MAX_PAGE, parseTemplate } from './template.ts'

/** Content types of the formats: as a client names them in `Accept`, and as the response has them. */
const types: Readonly<Record<string, readonly [accepted: string, sent: string]>> = {
  html: ['text/html', 'text/html; charset=utf-8'],
  json: ['application/json', 'application/json; charset=utf-8'],
  problem: ['application/problem+json', 'application/problem+json'],
  text: ['text/plain', 'text/plain; charset=utf-8']
}

type WrittenPage = string | { readonly file: string }

interface Options {
  readonly format: 'json' | 'problem'
  readonly pages?: Readonly<Record<string, object>>
  readonly upstream: boolean | readonly (number | string)[]
}

/** The pages of one status, class or code. */
interface PageSet {
  readonly accepted: readonly string[]
  readonly pages: readonly { readonly type: string; readonly fill: (values: PageValues) => string }[]
}

/** The error pages of a route. Templates are compiled and files are read once. */
export class ErrorPages implements ErrorBodies {
  readonly #sets: ReadonlyMap<string, PageSet>
  readonly #isProblem: boolean
  readonly #upstream: Options['upstream']

  constructor({ format, pages = {}, upstream }: Options) {
    this.#sets = new Map(Object.entries(pages).map(([key, formats]) => [key, setOf(formats as never)]))
    this.#isProblem = format === 'problem'
    this.#upstream = upstream
  }

  bodyOf({ status, code, message }: ToldError, request: FastifyRequest): ErrorBody | null {
    const reason = STATUS_CODES[status] ?? 'Error'
    const set = this.#setFor(status, code)
    if (set !== undefined) {
      const { accepted, pages } = set
      const page = pages[preferred(request.headers.accept, accepted)]
      const values = { status, reason, code: code ?? '', requestId: request.id }
      // Even with one format: a client that does not accept it gets another body.
      if (page !== undefined) return { type: page.type, body: page.fill(values), varies: true }
    }
    if (!this.#isProblem) return null
    const problem = {
      type: 'about:blank',
      title: reason,
      status,
      detail: message,
      ...(code && { code }),
      requestId: request.id,
      ...problemOf(request, code)
    }
    return { type: types.problem![1], body: JSON.stringify(problem), varies: set !== undefined }
  }

  replaces(status: number): boolean {
    return isIn(this.#upstream, status)
  }

  #setFor(status: number, code: string | undefined): PageSet | undefined {
    const sets = this.#sets
    return (
      (code === undefined ? undefined : sets.get(code)) ??
      sets.get(String(status)) ??
      sets.get(classOf(status)) ??
      sets.get('default')
    )
  }
}

export const classOf = (status: number) => `${Math.floor(status / 100)}xx`

/** Returns whether error responses of services with this status are replaced. */
export function isIn(upstream: Options['upstream'], status: number): boolean {
  if (status < 400 || status > 599 || upstream === false) return false
  return upstream === true || upstream.includes(status) || upstream.includes(classOf(status))
}

function setOf(formats: Readonly<Record<string, WrittenPage>>): PageSet {
  const written = Object.entries(formats)
  return {
    accepted: written.map(([format]) => types[format]![0]),
    pages: written.map(([format, page]) => {
      const text = typeof page === 'string' ? page : readSmall(page.file, MAX_PAGE).toString()
      return { type: types[format]![1], fill: parseTemplate(text, format) }
    })
  }
}
