// slow: installs packages
// The example config/examples/graphql-federation.yaml, with the published package and two subgraphs.
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { buildSchema, GraphQLObjectType, graphql } from 'graphql'
import type { Test } from 'tap'
import t from 'tap'
import { loadWithoutPlugins } from '../../../plugins/config.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startService, startWith } from '../../helpers/gateway.ts'
import { packages } from '../../helpers/packages.ts'

const examples = join(import.meta.dirname, '../../../config/examples')

interface Got {
  readonly headers: IncomingHttpHeaders
  readonly query: string
}

/** A service with a part of the schema, as Apollo Federation describes it. */
async function subgraph(t: Test, name: string, rootValue: object) {
  const sdl = readFileSync(join(examples, 'graphql-schemas', `${name}.graphql`), 'utf8')
  const got: Got[] = []
  const directives = 'directive @key(fields: String!) on OBJECT directive @external on FIELD_DEFINITION'
  const federation = `scalar _Any union _Entity = User extend type Query { _entities(representations: [_Any!]!): [_Entity]! }`
  const schema = buildSchema(`${directives} ${sdl.replaceAll(/^extend type/gm, 'type')} ${federation}`)
  const user = schema.getType('User')
  if (user instanceof GraphQLObjectType) user.isTypeOf = () => true
  const service = await startService((request, response) => {
    void json(request).then(async (body) => {
      const { query, variables } = body as { query: string; variables?: Record<string, unknown> }
      got.push({ headers: request.headers, query })
      const result = await graphql({ schema, source: query, rootValue, variableValues: variables })
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(result))
    })
  })
  t.teardown(service.close)
  return { port: new URL(service.url).port, got }
}

interface Key {
  readonly id: string
}

t.test('@mercuriusjs/gateway joins services that it calls through the mesh', async (t) => {
  const installed = await packages('graphql-federation', {
    '@mercuriusjs/gateway': '5.2.0',
    graphql: '16.12.0',
    mercurius: '16.10.1'
  })
  const root = mkdtempSync(join(installed, 'test-'))
  t.teardown(() => rm(root, { recursive: true, force: true }))
  for (const name of ['graphql-federation.js', 'graphql-federation.yaml', 'graphql-schemas'])
    cpSync(join(examples, name), join(root, name), { recursive: true })
  writeFileSync(join(root, 'package.json'), '{"type":"module"}')
  const users = await subgraph(t, 'users', { me: { id: '7', name: 'Amy' } })
  const reviews = await subgraph(t, 'reviews', {
    count: 2,
    _entities: ({ representations }: { representations: Key[] }) =>
      representations.map(({ id }) => ({ id, reviews: [{ body: `of ${id}` }] }))
  })
  const config = loadWithoutPlugins(join(root, 'graphql-federation.yaml'), {
    PORT: '0',
    ADMIN_PORT: '0',
    USERS_PORT: users.port,
    REVIEWS_PORT: reviews.port
  })
  const gateway = await startWith({ ...config, admin: false }, { log: true })
  t.teardown(gateway.close)
  const ask = async (query: string) => {
    const headers = { 'content-type': 'application/json', authorization: 'Bearer a', cookie: 'a=b' }
    const response = await fetch(`${gateway.url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query }) })
    return { status: response.status, body: (await response.json()) as object }
  }
  t.strictSame(await ask('{ me { name reviews { body } } count }'), {
    status: 200,
    body: { data: { me: { name: 'Amy', reviews: [{ body: 'of 7' }] }, count: 2 } }
  })
  t.match(users.got.at(-1)?.headers, { authorization: 'Bearer a', cookie: undefined })
  t.equal(reviews.got.at(-1)?.headers.host, `127.0.0.1:${reviews.port}`)
  t.match(await gateway.server.metrics.metrics(), /jingwei_mesh_\w+\{service="reviews"/, 'through the mesh')
  const calls = users.got.length + reviews.got.length
  const refused = await ask('{ __schema { types { name } } }')
  t.match(refused, { status: 400, body: { errors: [{ message: 'Introspection is disabled' }] } })
  t.equal(users.got.length + reviews.got.length, calls, 'refused before any call')
  await eventually(() => gateway.log.some(({ reason }) => reason === 'graphql_introspection'))
})
