/** Reads the operations of a GraphQL request: of the query string of a GET, or of the JSON body of a POST. */
import { isUtf8 } from 'node:buffer'
import { canonicalName } from '../../../../config/header-names.ts'
import type { JsonObject } from '../../strict-json.ts'
import { isObject, maxNesting, NotStrictJson, parseStrictJson } from '../../strict-json.ts'
import type { Reason } from './refusals.ts'
import { Refusal } from './refusals.ts'

/** One operation as a client sends it. */
export interface Operation {
  readonly query: string | null
  /** SHA-256 of `extensions.persistedQuery`: the protocol of automatic persisted queries. */
  readonly hash: string | null
  /** Id of a persisted query. */
  readonly id: string | null
  readonly variables: JsonObject | null
}

/** Names of an id, in the order of their precedence: of the GraphQL-over-HTTP proposal, of Relay, and of others. */
export const idNames = ['documentId', 'doc_id', 'id'] as const

/** Parameters by their name in lower case. */
const parameters = new Map(
  ['query', 'variables', 'operationName', 'extensions', ...idNames].map((name) => [name.toLowerCase(), name])
)

/** Returns a name in the case folding of decoders that ignore case: Go's also maps the long s and the Kelvin sign. */
const folded = (name: string) => name.toUpperCase().toLowerCase()

/** Throws a refusal for a parameter in another spelling: some services ignore case, or read `query[]`. */
function checkNames(names: Iterable<string>): void {
  for (const name of names) {
    const meant = parameters.get(folded(name.split('[', 1)[0] ?? ''))
    if (meant !== undefined && meant !== name) {
      throw new Refusal('graphql_parameters', `A parameter must be spelt "${meant}"`)
    }
  }
}

const faults: { readonly [F in NotStrictJson['fault']]: readonly [Reason, string] } = {
  malformed: ['graphql_body', 'is not JSON'],
  duplicate: ['graphql_duplicate_key', 'has two keys of the same name in one object'],
  nesting: ['graphql_nesting', `is nested deeper than ${maxNesting} levels`]
}

/** Parses JSON; throws a refusal that names `what`. */
function parseStrict(text: string, what: string): unknown {
  try {
    return parseStrictJson(text).value
  } catch (error) {
    if (!(error instanceof NotStrictJson)) throw error
    const [reason, message] = faults[error.fault]
    throw new Refusal(reason, `${what} ${message}`)
  }
}

/** Returns the query string of a request target. */
export const searchOf = (target: string): string => {
  const start = target.indexOf('?')
  return start === -1 ? '' : target.slice(start + 1)
}

/** Throws a refusal if the URL of a POST has parameters of GraphQL: some services read them before those of the body. */
export function checkPostTarget(target: string): void {
  for (const name of new URLSearchParams(searchOf(target).replaceAll(';', '&')).keys()) {
    if (parameters.has(folded(name.split('[', 1)[0] ?? ''))) {
      throw new Refusal('graphql_parameters', 'A POST must have its parameters in the body, not in the URL')
    }
  }
}

export function fromSearch(params: URLSearchParams): Operation {
  const names = [...params.keys()]
  checkNames(names)
  for (const name of parameters.values()) {
    if (params.getAll(name).length > 1) throw new Refusal('graphql_parameters', `"${name}" may be sent only once`)
  }
  const json = (name: string): unknown => {
    const text = params.get(name)
    return text === null || text === '' ? null : parseStrict(text, `"${name}"`)
  }
  return operationOf({
    ...Object.fromEntries(['query', 'operationName', ...idNames].map((name) => [name, params.get(name)])),
    variables: json('variables'),
    extensions: json('extensions')
  })
}

/** Throws a refusal unless the body of a POST is JSON in UTF-8, without a content coding. */
export function checkType(rawHeaders: readonly string[], removed: ReadonlySet<string> | null): void {
  const types: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    // Some services read Content_Type as Content-Type.
    const name = canonicalName(rawHeaders[i]!)
    const value = rawHeaders[i + 1]!
    if (name === 'content-type') types.push(value)
    else if (
      name === 'content-encoding' &&
      value.toLowerCase() !== 'identity' &&
      !removed?.has(rawHeaders[i]!.toLowerCase())
    ) {
      throw new Refusal('graphql_media_type', 'The body must have no content coding')
    }
  }
  const [type = '', another] = types
  const [media = '', ...rest] = type.split(';')
  const isUtf8Only = rest.every((part) => !/^\s*charset\s*=/i.test(part) || /=\s*"?utf-?8"?\s*$/i.test(part))
  if (media.trim().toLowerCase() !== 'application/json' || !isUtf8Only || another !== undefined) {
    throw new Refusal('graphql_media_type', 'The Content-Type must be application/json in UTF-8')
  }
}

/** Returns the text of a body. */
export function textOf(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw new Refusal('graphql_body', 'The body is not UTF-8')
  return bytes.toString()
}

/** Returns the operations of a body. */
export function fromBody(text: string, maxBatch: number): Operation[] {
  const value = parseStrict(text, 'The body')
  if (!Array.isArray(value)) return [fromMember(value)]
  if (value.length > maxBatch || maxBatch === 1) {
    const most = maxBatch === 1 ? 'Several operations in one request are refused' : `More than ${maxBatch} operations`
    throw new Refusal('graphql_batch', most)
  }
  if (value.length === 0) throw new Refusal('graphql_parameters', 'The list of operations is empty')
  return value.map(fromMember)
}

function fromMember(value: unknown): Operation {
  if (!isObject(value)) throw new Refusal('graphql_parameters', 'An operation must be a JSON object')
  checkNames(Object.keys(value))
  return operationOf(value)
}

function operationOf(given: JsonObject): Operation {
  const text = (name: string): string | null => {
    const value = own(given, name)
    if (value === null || typeof value === 'string') return value
    throw new Refusal('graphql_parameters', `"${name}" must be a string`)
  }
  const extensions = mapping(given, 'extensions')
  const persisted = extensions === null ? null : mapping(extensions, 'persistedQuery')
  const hash = persisted === null ? null : own(persisted, 'sha256Hash')
  if (persisted !== null && typeof hash !== 'string') {
    throw new Refusal('graphql_parameters', '"extensions.persistedQuery.sha256Hash" must be a string')
  }
  text('operationName')
  const ids = idNames.map((name) => own(given, name)).filter((id) => typeof id === 'string')
  const query = text('query')
  return {
    query: query === '' ? null : query,
    hash: hash as string | null,
    id: ids[0] ?? null,
    variables: mapping(given, 'variables')
  }
}

const own = (given: JsonObject, name: string): unknown => (Object.hasOwn(given, name) ? given[name] : null) ?? null

function mapping(given: JsonObject, name: string): JsonObject | null {
  const value = own(given, name)
  if (value === null || isObject(value)) return value
  throw new Refusal('graphql_parameters', `"${name}" must be an object`)
}
