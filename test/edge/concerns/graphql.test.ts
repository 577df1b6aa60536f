// slow: takes about 5 s
import { join } from 'node:path'
import { getIntrospectionQuery } from 'graphql'
import type { Test } from 'tap'
import t from 'tap'
import type { AskOptions, Received } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { graphqlService, sha256 } from '../../helpers/edge/graphql-service.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, startGateway } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

type Protocol = (typeof protocols)[number]

const json = { 'content-type': 'application/json' }

/** A gateway before a GraphQL server. */
async function guarded(t: Test, graphql: object, protocol: Protocol = 'HTTP/1.1', more: object = {}) {
  const service = await graphqlService(t)
  let arrived = 0
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { graph: { instances: [service.url] } },
      routes: [{ name: 'graph', match: { path: '/graphql' }, service: 'graph', edge: { graphql, ...more } }]
    },
    {
      log: true,
      before: (server) => {
        server.addHook('onRequest', async () => {
          arrived++
        })
      }
    }
  )
  t.teardown(gateway.close)
  const { ask, begin } = anyClient(t, protocol, gateway.port)
  const post = (body: string | Buffer | object, options: AskOptions = {}) => {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)
    return ask('/graphql', { method: 'POST', headers: json, body: bytes, ...options })
  }
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, got: service.got, ask, begin, post, lines, arrived: () => arrived }
}

async function manifestFile(t: Test): Promise<string> {
  const root = await folder(t, { 'queries.json': JSON.stringify({ amy: '{ me { name } }' }) })
  return join(root, 'queries.json')
}

interface GraphqlBody {
  readonly data?: unknown
  readonly errors?: readonly { readonly message: string; readonly extensions: Record<string, unknown> }[]
}
const bodyOf = ({ body }: Received) => JSON.parse(body.toString()) as GraphqlBody

for (const protocol of protocols) {
  t.test(`requests that are not refused reach the service byte for byte over ${protocol}`, async (t) => {
    const { post, ask, begin, got } = await guarded(t, {}, protocol)
    const body =
      '{ "query" : "query A($n: Int) { people(first: $n) { name } }",\n "variables":{"n": 1e0}, "x": "\\u00e9" }'
    t.same(bodyOf(await post(body)), { data: { people: [{ name: '0' }] } })
    t.equal(got.at(-1)?.body.toString(), body)
    t.match(got.at(-1)?.headers, { 'content-length': String(body.length), 'content-type': 'application/json' })

    const chunked = begin('/graphql', { method: 'POST', headers: json, streams: true })
    chunked.send(body.slice(0, 20))
    chunked.send(body.slice(20))
    chunked.end()
    t.equal((await chunked.response).status, 200)
    t.equal(got.at(-1)?.body.toString(), body)

    const target = `/graphql?query=${encodeURIComponent('{ me { name } }')}&x=%2f+1`
    t.same(bodyOf(await ask(target)), { data: { me: { name: 'amy' } } })
    t.equal(got.at(-1)?.url, target)
    t.match(await ask(target, { method: 'HEAD' }), { status: 200 })
    t.match(await ask('/graphql', { method: 'OPTIONS' }), { status: 200 }, 'a preflight is left to the service')
    t.equal(
      (await post({ query: getIntrospectionQuery() })).status,
      200,
      'the usual introspection is within the limits'
    )
  })

  t.test(`refusals have the shape of GraphQL errors over ${protocol}`, async (t) => {
    const { post, lines, got, server } = await guarded(t, { maxDepth: 2 }, protocol)
    const query = '{ me { friends { name } } }'
    const refused = await post({ query })
    t.match(refused, { status: 400, headers: { 'content-type': 'application/json; charset=utf-8' }, isWhole: true })
    const message = 'The operation has 3 levels of fields; the limit is 2'
    t.match(bodyOf(refused), { errors: [{ message, extensions: { code: 'JW_GRAPHQL_LIMIT', requestId: String } }] })
    await eventually(() => lines().length === 1)
    t.match(lines()[0], { error: 'JW_GRAPHQL_LIMIT', reason: 'graphql_depth', status: 400, answeredBy: 'gateway' })
    const accept = 'application/graphql-response+json, application/json;q=0.9'
    const { headers } = await post({ query }, { headers: { ...json, accept } })
    t.equal(headers['content-type'], 'application/graphql-response+json; charset=utf-8')
    t.equal(got.length, 0)
    t.equal((await post({ query: '{ me { name } }' })).status, 200, 'the next request is served')
    t.match(
      await server.metrics.metrics(),
      'jingwei_edge_graphql_refused_total{route="graph",reason="graphql_depth"} 2'
    )
  })

  t.test(`persisted queries over ${protocol}`, async (t) => {
    const manifest = await manifestFile(t)
    const { post, ask, got } = await guarded(t, { persistedQueries: { manifest, automatic: '1mb' } }, protocol)
    const query = 'query N($n: [Float!]!) { sum(numbers: $n) }'
    const hash = sha256(query)
    const extensions = { persistedQuery: { version: 1, sha256Hash: hash }, trace: true }
    // JavaScript does not have these numbers.
    const variables = '{"n":[12345678901234567890,1.0]}'
    const miss = await post(`{"variables":${variables},"extensions":${JSON.stringify(extensions)}}`)
    t.match(miss, { status: 200, headers: { 'cache-control': 'no-store' } })
    const notFound = { message: 'PersistedQueryNotFound', extensions: { code: 'PERSISTED_QUERY_NOT_FOUND' } }
    t.match(bodyOf(miss), { errors: [notFound] })
    t.equal((await post({ query, extensions, variables: { n: [1] } })).status, 200, 'registers it')
    t.notMatch(got.at(-1)?.body.toString(), /sha256Hash/, 'the service need not know the protocol')

    const digest = { 'content-digest': 'sha-256=:AAAA:' }
    const found = await post(`{"variables":${variables},"extensions":${JSON.stringify(extensions)}}`, {
      headers: { ...json, ...digest }
    })
    t.match(bodyOf(found), { data: { sum: 12345678901234567000 } })
    const expected = `{"variables":${variables},"extensions":{"trace":true},"query":${JSON.stringify(query)}}`
    t.equal(got.at(-1)?.body.toString(), expected)
    t.equal(got.at(-1)?.headers['content-length'], String(expected.length))
    t.notOk('content-digest' in got.at(-1)!.headers)

    const params = new URLSearchParams({ variables, extensions: JSON.stringify(extensions), x: '1' })
    t.match(bodyOf(await ask(`/graphql?${params}`)), { data: { sum: 12345678901234567000 } })
    const sent = new URL(got.at(-1)!.url, 'http://any').searchParams
    t.same(Object.fromEntries(sent), { variables, extensions: '{"trace":true}', x: '1', query })

    for (const id of ['documentId', 'doc_id', 'id']) {
      t.match(bodyOf(await post({ [id]: 'amy' })), { data: { me: { name: 'amy' } } }, id)
      t.equal(got.at(-1)?.body.toString(), '{"query":"{ me { name } }"}')
      t.match(bodyOf(await ask(`/graphql?${id}=amy`)), { data: { me: { name: 'amy' } } }, id)
    }
    t.match(bodyOf(await post({ extensions: { persistedQuery: { sha256Hash: 'amy' } } })), { data: { me: {} } })
    const wrong = await post({ query: '{ me { age } }', extensions })
    t.match(bodyOf(wrong), { errors: [{ extensions: { code: 'JW_GRAPHQL_REQUEST' } }] }, 'a hash of another query')
  })
}

/** Asks with each query; checks the reason in the log, and that the service got nothing. */
async function refuses(t: Test, graphql: object, cases: readonly (readonly [reason: string | null, body: unknown])[]) {
  const { post, lines, got } = await guarded(t, graphql)
  for (const [index, [reason, given]] of cases.entries()) {
    const before = got.length
    const body =
      typeof given === 'string' && !given.startsWith('{"') && !given.startsWith('[') ? { query: given } : given
    const { status } = await post(body as object)
    await eventually(() => lines().length > index)
    const what = JSON.stringify(given).slice(0, 100)
    t.equal(lines()[index]?.reason ?? null, reason, what)
    t.equal(got.length - before, reason === null ? 1 : 0, what)
    t.equal(status >= 400, reason !== null, what)
  }
}

t.test('limits', async (t) => {
  const graphql = {
    maxTokens: 100,
    maxDepth: 4,
    maxAliases: 3,
    maxRootFields: 4,
    maxCost: 50,
    introspection: false,
    fields: { friends: { cost: 2, listSize: 5 }, people: { listSize: 2 } }
  }
  const many = (count: number, of: (index: number) => string) =>
    Array.from({ length: count }, (_, i) => of(i)).join(' ')
  await refuses(t, graphql, [
    [null, '{ me { friends(first: 1) { friends(first: 1) { name } } } }'],
    ['graphql_depth', '{ me { friends { friends { friends { name } } } } }'],
    [
      'graphql_depth',
      '{ ...A } fragment A on Query { me { ...B } } fragment B on Person { friends { ...C } } fragment C on Person { friends { friends { age } } }'
    ],
    ['graphql_depth', 'query A { me { name } } query B { me { friends { friends { friends { age } } } } }'],
    [null, '{ a: me { age } b: me { age } c: me { age } }'],
    ['graphql_aliases', '{ a: me { age } b: me { age } c: me { d: age } }'],
    ['graphql_aliases', '{ me { ...A ...A } } fragment A on Person { a: age b: name }'],
    ['graphql_root_fields', `{ ${many(5, () => 'me { age }')} }`],
    ['graphql_root_fields', `{ ${many(3, () => '...A')} } fragment A on Query { me { age } ... { me { age } } }`],
    ['graphql_tokens', `{ ${many(99, () => 'me')} }`],
    ['graphql_introspection', '{ __schema { types { name } } }'],
    ['graphql_introspection', '{ me { age } ...A } fragment A on Query { __type(name: "A") { name } }'],
    [null, '{ __typename me { __typename } }'],
    // 2 × (1 + 5 × (2 + 1)) = 32
    [null, '{ people { friends { age } } }'],
    ['graphql_cost', '{ people { friends { age name } age friends { age } } }'],
    ['graphql_cost', '{ people(first: 26) { age } }'],
    ['graphql_cost', '{ me { friends(first: 1, limit: 20) { age } } }'],
    [null, { query: 'query A($n: Int) { people(first: $n) { age } }', variables: { n: 25 } }],
    ['graphql_cost', { query: 'query A($n: Int) { people(first: $n) { age } }', variables: { n: 26 } }],
    ['graphql_cost', { query: 'query A($n: Int) { people(first: $n) { age } }', variables: { n: '26' } }],
    ['graphql_cost', { query: 'query A($n: Int) { people(first: $n) { age } }', variables: { n: 1e308 } }],
    ['graphql_cost', 'query A($n: Int = 26) { people(first: $n) { age } }'],
    [null, { query: 'query A($n: Int = 26) { people(first: $n) { age } }', variables: { n: 3 } }],
    ['graphql_cost', '{ people(first: 9) { ...A } } fragment A on Person { friends(first: 9) { age } }'],
    ['graphql_batch', [{ query: '{ me { age } }' }]]
  ] as [string | null, unknown][])
})

t.test('hostile documents', async (t) => {
  const nested = (open: string, close: string, levels: number) => open.repeat(levels) + close.repeat(levels)
  const doubling = Array.from({ length: 60 }, (_, i) => `fragment F${i} on Query { ...F${i + 1} ...F${i + 1} }`).join(
    ' '
  )
  const chain = Array.from({ length: 900 }, (_, i) => `fragment C${i} on Query { ...C${i + 1} }`).join(' ')
  const body = (more: string) => `{"query":"{ me { age } }"${more}}`
  await refuses(t, { maxDepth: 1000, maxTokens: 100_000 }, [
    ['graphql_fragments', '{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }'],
    ['graphql_fragments', '{ me { age } } fragment A on Query { ...A }'],
    ['graphql_fragments', '{ ...A } fragment A on Query { me { age } } fragment A on Query { me { name } }'],
    ['graphql_nesting', nested('{a', '}', 20_000)],
    ['graphql_nesting', `{ me(a: ${nested('[', ']', 20_000)}) }`],
    ['graphql_nesting', `{ me(a: ${'{a:'.repeat(10_000)}1${'}'.repeat(10_000)}) }`],
    ['graphql_nesting', `query A($a: ${nested('[', ']', 10_000).replace('[]', '[Int]')}) { me { age } }`],
    ['graphql_root_fields', `{ ...F0 } ${doubling} fragment F60 on Query { me { age } }`],
    [null, `{ ...C0 } ${chain} fragment C900 on Query { me { age } }`],
    ['graphql_tokens', '{ '.padEnd(220_000, 'a ')],
    ['graphql_syntax', '{ me { age }'],
    ['graphql_syntax', '{ me("\\u0000 }'],
    ['graphql_syntax', 'fragment A on Query { me { age } }'],
    ['graphql_syntax', '{ me { age } } type A { a: Int }'],
    ['graphql_body', '{"query"'],
    ['graphql_body', Buffer.from('{"query":"{ me { age } }","x":"\xff"}', 'latin1')],
    ['graphql_body', Buffer.from('\ufeff{"query":"{ me { age } }"}')],
    ['graphql_duplicate_key', body(',"query":"{ people { age } }"')],
    ['graphql_duplicate_key', body(',"qu\\u0065ry":"{ people { age } }"')],
    ['graphql_duplicate_key', body(',"variables":{"a":{"b":1,"b":2}}')],
    ['graphql_duplicate_key', body(',"__proto__":{"a":1,"a":1}')],
    [null, body(',"__proto__":{"query":"{ people { age } }"},"constructor":1,"x":"a:\\"b:"')],
    ['graphql_parameters', body(',"Query":"{ people { age } }"')],
    ['graphql_parameters', body(',"exten\u017fions":{}')],
    ['graphql_parameters', body(',"variables":"{}"')],
    ['graphql_parameters', body(',"operationName":{}')],
    ['graphql_parameters', body(',"extensions":{"persistedQuery":{}}')],
    ['graphql_parameters', '{"query":{}}'],
    ['graphql_parameters', '{"x":1}'],
    ['graphql_nesting', body(`,"variables":{"a":${nested('[', ']', 50_000)}}`)],
    [null, { query: 'query A($n: Int) { me { friends(first: $n) { age } } }', variables: { n: 1, x: { valueOf: 1 } } }]
  ])
  const { post } = await guarded(t, {})
  const off = await post({ extensions: { persistedQuery: { version: 1, sha256Hash: 'a' } } })
  t.match(bodyOf(off), { errors: [{ message: 'PersistedQueryNotSupported' }] })
  const objects = {
    query: 'query A($n: Int) { people(first: $n) { age } }',
    variables: { n: { valueOf: 1, toString: 1 } }
  }
  t.equal((await post(objects)).status, 200, 'the service refuses its type')
})

t.test('a syntax error repeats no long names of the document', async (t) => {
  const { post } = await guarded(t, {})
  const refused = await post({ query: `{ me { age } } ${'x'.repeat(50_000)}` })
  t.match(refused, { status: 400, isWhole: true })
  t.match(refused.body.toString(), /Syntax Error: Unexpected Name/)
  t.ok(refused.body.length < 600, `${refused.body.length}`)
})

t.test('requests that a service could read in another way are refused', async (t) => {
  const { ask, post, port, lines, got } = await guarded(t, { maxBody: '1kb' })
  const query = encodeURIComponent('{ me { age } }')
  const body = JSON.stringify({ query: '{ me { age } }' })
  const cases = [
    [
      405,
      'graphql_mutation_by_get',
      () => ask(`/graphql?query=${encodeURIComponent('mutation { rename(name: "a") { name } }')}`)
    ],
    [405, 'graphql_method', () => ask('/graphql', { method: 'PUT', headers: json, body })],
    [405, 'graphql_method', () => ask(`/graphql?query=${query}`, { headers: json, body })],
    [400, 'graphql_parameters', () => ask('/graphql')],
    [400, 'graphql_parameters', () => ask(`/graphql?query=${query}&query=${query}`)],
    [400, 'graphql_parameters', () => ask(`/graphql?query=${query}&Query=${query}`)],
    [400, 'graphql_parameters', () => ask(`/graphql?query=${query}&query[]=${query}`)],
    [400, 'graphql_parameters', () => ask(`/graphql?%71uery=${query}`, { method: 'POST', headers: json, body })],
    [400, 'graphql_parameters', () => ask(`/graphql?a=1;QUERY=${query}`, { method: 'POST', headers: json, body })],
    [415, 'graphql_media_type', () => post(body, { headers: {} })],
    [415, 'graphql_media_type', () => post(body, { headers: { 'content-type': 'text/plain' } })],
    [
      415,
      'graphql_media_type',
      () => post(body, { headers: { 'content-type': 'application/json', content_type: 'a/b' } })
    ],
    [415, 'graphql_media_type', () => post(body, { headers: { 'content-type': 'application/json; charset=utf-16' } })],
    [415, 'graphql_media_type', () => post(body, { headers: { ...json, 'Content-Type': 'text/plain' } })],
    [415, 'graphql_media_type', () => post(body, { headers: { ...json, 'content-encoding': 'gzip' } })],
    [413, 'graphql_body_size', () => post(body.padEnd(1025))]
  ] as [number, string, () => Promise<Received>][]
  for (const [index, [status, reason, send]] of cases.entries()) {
    const received = await send()
    t.equal(received.status, status, reason)
    t.match(bodyOf(received).errors, [{ extensions: { code: String } }])
    await eventually(() => lines().length > index)
    t.equal(lines()[index]?.reason, reason)
  }
  t.equal((await post(body, { headers: { 'content-type': 'Application/JSON; charset="UTF-8"' } })).status, 200)
  t.equal((await post(body.padEnd(1024))).status, 200)
  t.equal(got.length, 2)
  const socket = connect(port, handshake('/graphql'))
  await socket.until('JW_UPGRADE_REFUSED')
  socket.socket.destroy()
})

t.test('a chunked body over maxBody is refused, and the connection closed', async (t) => {
  const { begin, got } = await guarded(t, { maxBody: '1kb' })
  const call = begin('/graphql', { method: 'POST', headers: json, streams: true })
  for (let i = 0; i < 3; i++) call.send('x'.repeat(1000))
  t.match(await call.response, { status: 413, headers: { connection: 'close' } })
  t.equal(got.length, 0)
})

t.test('clients that pause or disconnect within the body', async (t) => {
  const { begin, lines, got, arrived } = await guarded(t, {}, 'HTTP/1.1', { bodyTimeout: '300ms' })
  const paused = begin('/graphql', { method: 'POST', headers: json, streams: true })
  paused.send('{')
  const response = await paused.response
  t.match(response, { status: 408 })
  t.match(bodyOf(response), { errors: [{ extensions: { code: 'JW_BODY_TOO_SLOW' } }] })
  const gone = begin('/graphql', { method: 'POST', headers: json, streams: true })
  gone.send('{')
  await eventually(() => arrived() === 2)
  await gone.leave()
  await eventually(() => lines().length === 2)
  t.match(lines()[1], { status: 499, error: 'JW_CLIENT_GONE' })
  t.equal(got.length, 0)
})

t.test('errors of other concerns and of the mesh have the shape of GraphQL errors, too', async (t) => {
  const gateway = await startGateway({
    services: { gone: { instances: ['http://127.0.0.1:1'] } },
    routes: [
      { name: 'a', match: { path: '/a' }, service: 'gone', edge: { graphql: {}, jwt: { secret: 'x'.repeat(32) } } },
      { name: 'b', match: { path: '/b' }, service: 'gone', edge: { graphql: {} } },
      { name: 'c', match: { path: '/c' }, service: 'gone' }
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const body = JSON.stringify({ query: '{ a }' })
  const send = async (path: string) => bodyOf(await ask(path, { method: 'POST', headers: json, body }))
  t.match(await send('/a'), { errors: [{ extensions: { code: 'JW_TOKEN_MISSING' } }] })
  t.match(await send('/b'), { errors: [{ message: String, extensions: { code: 'JW_UPSTREAM_REFUSED' } }] })
  t.match(await send('/c'), { statusCode: 502 }, 'not on other routes')
})

t.test('a persisted query is retried with its whole body', async (t) => {
  const manifest = await manifestFile(t)
  const service = await graphqlService(t, 2)
  const gateway = await startGateway({
    mesh: { retry: { attempts: 3, on: [503], methods: ['POST'], backoff: { base: '1ms' } } },
    services: { graph: { instances: [service.url] } },
    routes: [
      { name: 'g', match: { path: '/' }, service: 'graph', edge: { graphql: { persistedQueries: { manifest } } } }
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const received = await ask('/', { method: 'POST', headers: json, body: '{"id":"amy"}' })
  t.match(bodyOf(received), { data: { me: { name: 'amy' } } })
  t.same(
    service.got.map(({ body }) => body.toString()),
    Array(3).fill('{"query":"{ me { name } }"}')
  )
})

t.test('only queries of the manifest', async (t) => {
  const known = '{ me { name } }'
  const apollo = { format: 'apollo-persisted-query-manifest', version: 1 }
  const operations = [{ id: sha256(known), name: 'A', type: 'query', body: known }]
  const root = await folder(t, {
    'web.json': JSON.stringify({ ...apollo, operations }),
    'app.json': JSON.stringify({ deep: '{ me { friends { friends { age } } } }' })
  })
  const { post, lines } = await guarded(t, {
    maxDepth: 3,
    persistedQueries: { manifest: root, only: true }
  })
  t.match(bodyOf(await post({ query: known })), { data: { me: { name: 'amy' } } }, 'by its text')
  for (const sha256Hash of [sha256(known), sha256(known)]) {
    t.match(bodyOf(await post({ extensions: { persistedQuery: { sha256Hash } } })), { data: { me: { name: 'amy' } } })
  }
  t.match(bodyOf(await post({ documentId: `sha256:${sha256(known)}` })), { data: { me: { name: 'amy' } } })
  for (const body of [{ query: '{ me { age } }' }, { id: 'other' }, { id: '__proto__' }]) {
    const received = await post(body)
    t.equal(received.status, 403)
    t.match(bodyOf(received), { errors: [{ extensions: { code: 'JW_GRAPHQL_NOT_PERSISTED' } }] })
  }
  t.equal((await post({ id: 'deep' })).status, 400, 'the limits apply to known queries, too')
  await eventually(() => lines().length === 8)
  t.same(
    lines()
      .slice(4)
      .map(({ reason }) => reason),
    [...Array(3).fill('graphql_not_persisted'), 'graphql_depth']
  )
})

t.test('the memory of registered queries is bounded', async (t) => {
  const { post } = await guarded(t, { persistedQueries: { automatic: '1kb' } })
  const queryOf = (index: number) => `query Q${index} { me { name } }`.padEnd(200)
  const register = (index: number) => {
    const query = queryOf(index)
    return post({ query, extensions: { persistedQuery: { sha256Hash: sha256(query) } } })
  }
  const has = async (index: number) =>
    'data' in bodyOf(await post({ extensions: { persistedQuery: { sha256Hash: sha256(queryOf(index)) } } }))
  t.equal((await register(0)).status, 200)
  t.ok(await has(0))
  await register(1)
  t.same([await has(1), await has(0)], [true, false], 'the second one replaces the first')
  const deep = `{ me ${'{ friends '.repeat(20)}{ age ${'}'.repeat(21)} }`
  const refused = await post({ query: deep, extensions: { persistedQuery: { sha256Hash: sha256(deep) } } })
  t.equal(refused.status, 400, 'a query over a limit is not registered')
})

t.test('batches are measured together', async (t) => {
  const { post, got } = await guarded(t, {
    maxBatch: 3,
    maxAliases: 3,
    maxTokens: 40,
    persistedQueries: { automatic: '1kb' }
  })
  const one = { query: '{ a: me { name } }' }
  const body = JSON.stringify([one, one])
  t.same(JSON.parse((await post(body)).body.toString()), Array(2).fill({ data: { a: { name: 'amy' } } }))
  t.equal(got[0]?.body.toString(), body)
  t.equal((await post([one, one, one, one])).status, 400)
  t.equal((await post([one, { query: '{ a: me { b: name c: age } }' }])).status, 400)
  t.equal((await post([])).status, 400)
  t.equal((await post([one, []])).status, 400)
  t.equal(got.length, 1)
})

t.test('a client that waits for 100 Continue gets it before its body is checked', async (t) => {
  const { port, got } = await guarded(t, {})
  const body = '{"query":"{ me { name } }"}'
  const lines = [
    'POST /graphql HTTP/1.1',
    'Host: h',
    'Content-Type: application/json',
    `Content-Length: ${body.length}`
  ]
  const client = connect(port, `${[...lines, 'Expect: 100-continue', 'Connection: close'].join('\r\n')}\r\n\r\n`)
  await client.until('HTTP/1.1 100 Continue')
  client.send(body)
  t.match((await client.closed).text, /HTTP\/1.1 200 OK.*amy/s)
  t.equal(got[0]?.body.toString(), body)
  const refused = connect(port, `${[...lines, 'Content-Encoding: gzip', 'Expect: 100-continue'].join('\r\n')}\r\n\r\n`)
  t.match((await refused.closed).text, /^HTTP\/1.1 415 /, 'none if the header section is refused')
})

t.test('routes of http-proxy and own routes of plugins', async (t) => {
  const service = await graphqlService(t)
  const manifest = await manifestFile(t)
  const edge = { graphql: { maxDepth: 2, persistedQueries: { manifest } } }
  const gateway = await startGateway(
    {
      edge,
      services: { graph: { instances: [service.url] } },
      routes: [{ name: 'g', match: { path: '/graphql' }, service: 'graph', via: 'http-proxy' }]
    },
    {
      before: (server) => {
        server.register(async (fastify) => {
          const config = { guarded: true }
          fastify.post('/own', { config }, async ({ body }) => ({ body }))
          fastify.get('/own', { config }, async ({ query }) => ({ query }))
        })
      }
    }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const post = (path: string, body: string) => ask(path, { method: 'POST', headers: json, body })
  const text = '{"query": "{ me { name } }"}'
  t.match(bodyOf(await post('/graphql', text)), { data: { me: { name: 'amy' } } })
  t.equal(service.got.at(-1)?.body.toString(), text)
  t.match(bodyOf(await post('/graphql', '{"id":"amy"}')), { data: { me: { name: 'amy' } } })
  t.equal(service.got.at(-1)?.body.toString(), '{"query":"{ me { name } }"}')
  t.match(bodyOf(await ask('/graphql?id=amy')), { data: { me: { name: 'amy' } } })
  t.equal((await post('/graphql', '{"query":"{ me { friends { age } } }"}')).status, 400)
  t.strictSame(bodyOf(await post('/own', '{"id":"amy"}')), { body: { query: '{ me { name } }' } })
  t.strictSame(bodyOf(await ask('/own?id=amy&x=1')), { query: { query: '{ me { name } }', x: '1' } })
  const refused = await post('/own', '{"query":"{ me { friends { age } } }"}')
  t.match(bodyOf(refused), { errors: [{ extensions: { code: 'JW_GRAPHQL_LIMIT' } }] })
})
