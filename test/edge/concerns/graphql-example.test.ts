// The example config/examples/graphql.yaml before a GraphQL server, and the faults that `check` finds.
import { join } from 'node:path'
import t from 'tap'
import { loadWithoutPlugins } from '../../../plugins/config.ts'
import { graphqlService } from '../../helpers/edge/graphql-service.ts'
import { configOf, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

const example = join(import.meta.dirname, '../../../config/examples/graphql.yaml')

t.test('the example serves what its comments say', async (t) => {
  const { url, got } = await graphqlService(t)
  const config = loadWithoutPlugins(example, { PORT: '0', GRAPH_PORT: new URL(url).port })
  const gateway = await startWith({ ...config, admin: false })
  t.teardown(gateway.close)
  const send = async (path: string, body: object) => {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(gateway.url + path, { method: 'POST', headers, body: JSON.stringify(body) })
    return { status: response.status, body: (await response.json()) as object }
  }
  const home = { data: { me: { name: 'amy', friends: [{ name: 'amy0' }, { name: 'amy1' }, { name: 'amy2' }] } } }
  t.strictSame(await send('/graphql', { id: 'home' }), { status: 200, body: home })
  t.strictSame(await send('/partners/graphql', { documentId: 'home' }), { status: 200, body: home })
  t.same(
    got.map((each) => each.url),
    ['/graphql', '/graphql']
  )
  t.equal((await send('/graphql', { query: '{ me { age } }' })).status, 200)
  t.equal((await send('/partners/graphql', { query: '{ me { age } }' })).status, 403)
  t.equal((await send('/graphql', { query: '{ me { friends { friends { friends { age } } } } }' })).status, 400, 'cost')
  t.equal((await send('/graphql', { query: '{ me { friends { friends { age } } } }' })).status, 200)
})

t.test('check finds options that cannot work, or have no effect', async (t) => {
  const root = await folder(t, {
    'good.json': '{"a":"{ b }"}',
    'text.json': 'query',
    'list.json': '[]',
    'empty.json': '{}',
    'ids.json': '{"a":1}',
    'apollo.json': '{"format":"apollo-persisted-query-manifest","version":1,"operations":[{"id":"a"}]}',
    'syntax.json': '{"a":"{ b }","bad":"{ b"}',
    'twice/one.json': '{"a":"{ b }"}',
    'twice/two.json': '{"a":"{ c }"}'
  })
  const manifest = (name: string) => ({ persistedQueries: { manifest: join(root, name) } })
  const faultOf = (graphql: object): string => {
    try {
      configOf({ edge: { graphql }, services: {}, routes: [] })
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(faultOf(manifest('good.json')), '')
  t.equal(faultOf({ persistedQueries: { automatic: '1mb' } }), '')
  const cases: [object, RegExp][] = [
    [manifest('none.json'), /manifest: .*none\.json: cannot be read \(ENOENT\)/],
    [manifest('text.json'), /text\.json: not JSON/],
    [manifest('list.json'), /list\.json: expected \{ "format"/],
    [manifest('empty.json'), /empty\.json: has no queries/],
    [manifest('ids.json'), /ids\.json: entry 1 has no id or no query/],
    [manifest('apollo.json'), /apollo\.json: entry 1 has no id or no query/],
    [manifest('syntax.json'), /the query "bad" cannot be used: Syntax Error: Expected Name, found <EOF>/],
    [manifest('twice'), /two\.json: the id "a" already has another query/],
    [{ persistedQueries: {} }, /persistedQueries: needs "manifest", "automatic" or both/],
    [{ persistedQueries: { only: true } }, /only: needs "manifest"/],
    [
      { persistedQueries: { ...manifest('good.json').persistedQueries, only: true, automatic: '1mb' } },
      /automatic: has no effect/
    ],
    [{ maxCost: false, fields: { a: { cost: 2 } } }, /fields: has no effect with "maxCost: false"/],
    [{ maxDepth: 0 }, /maxDepth/],
    [{ listArguments: ['a b'] }, /expected the name of an argument/]
  ]
  for (const [graphql, fault] of cases) t.match(faultOf(graphql), fault)
})
