// A GraphQL server over HTTP, with graphql-js. It keeps what it gets, byte for byte.
import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { buildSchema, execute, parse, validate } from 'graphql'
import type { Test } from 'tap'
import { startService } from '../gateway.ts'

const schema = buildSchema(`
  type Query { me: Person, people(first: Int, filter: Filter): [Person!]!, sum(numbers: [Float!]!): Float }
  type Mutation { rename(name: String!): Person }
  type Person { name: String, age: Int, friends(first: Int, limit: Int): [Person!]! }
  input Filter { name: String, inner: Filter }
`)

interface Person {
  readonly name: string
  readonly age: number
  readonly friends: (given: { first?: number }) => Person[]
}

const person = (name: string): Person => ({
  name,
  age: 7,
  friends: ({ first = 2 }) => Array.from({ length: first }, (_, index) => person(`${name}${index}`))
})

const rootValue = {
  me: () => person('amy'),
  people: ({ first = 2 }: { first?: number }) => person('').friends({ first }),
  sum: ({ numbers }: { numbers: number[] }) => numbers.reduce((sum, each) => sum + each, 0),
  rename: ({ name }: { name: string }) => person(name)
}

/** A request that the service got. */
export interface Got {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Buffer
}

export const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

interface Given {
  readonly query?: string
  readonly variables?: Record<string, unknown> | null
  readonly operationName?: string | null
}

function respond({ query = '', variables, operationName }: Given): unknown {
  if (query === '') return { errors: [] }
  const document = parse(query)
  const errors = validate(schema, document)
  if (errors.length > 0) return { errors }
  return execute({ schema, document, rootValue, variableValues: variables ?? {}, operationName: operationName ?? null })
}

/** Starts the server; it ends with the test. With `failures`, it first responds that often with 503. */
export async function graphqlService(t: Test, failures = 0) {
  const got: Got[] = []
  let left = failures
  const { url, close } = await startService((request, response) => {
    void buffer(request).then((body) => {
      const { method = '', url = '', headers } = request
      got.push({ method, url, headers, body })
      if (left-- > 0) {
        response.writeHead(503).end()
        return
      }
      const { searchParams } = new URL(url, 'http://any')
      const variables = searchParams.get('variables')
      const inUrl = { query: searchParams.get('query') ?? '', variables: JSON.parse(variables ?? 'null') as null }
      const given = method === 'POST' ? (JSON.parse(body.toString()) as Given | Given[]) : inUrl
      const content = JSON.stringify(Array.isArray(given) ? given.map(respond) : respond(given))
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(content) })
      response.end(method === 'HEAD' ? undefined : content)
    })
  })
  t.teardown(close)
  return { url, got }
}
