/** Groups of routes: how they are merged, and where their faults are. */
import t from 'tap'
import type { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

const services = 'services: { a: { instances: [http://h] }, b: { instances: [http://h] } }\n'

const parse = (yaml: string) => parseConfig(services + yaml, 'gateway.yaml', {})

function faultsOf(yaml: string): string[] {
  try {
    parse(yaml)
    return []
  } catch (error) {
    return (error as ConfigError).faults.map(
      ({ line, column, path, message }) => `${line}:${column}: ${path}: ${message}`
    )
  }
}

t.test('a route keeps what it sets, and shares the rest', async (t) => {
  const { routes, ...config } = parse(`
plugins: [{ package: fastify, name: p, scope: routes }, { package: fastify, name: q, scope: routes }]
groups:
  shop:
    match: { path: /shop, hosts: [shop.example.com], methods: [GET], headers: { x-shop: "1", x-both: group }, query: { a: "1" } }
    priority: 3
    service: a
    path: { strip: true, encodedSlash: pass }
    edge: { cors: { origin: ["https://a.example"] }, bodyLimit: 1mb }
    mesh: { timeout: 3s, retry: { attempts: 1 } }
    plugins: [p]
    config: { one: 1, two: 2 }
routes:
  - { name: all, group: shop }
  - name: own
    group: shop
    match: { path: [/a, /b], methods: [PUT], headers: { x-own: "2", x-both: { present: true } }, cookies: { c: "3" } }
    priority: 0
    service: b
    path: { rewrite: { prefix: /v2 } }
    edge: { cors: false }
    mesh: { retry: false }
    plugins: [q]
    config: { two: 3 }
  - { name: split, group: shop, match: { path: /s }, split: [{ service: b, weight: 1 }] }
  - { name: none, match: { path: /none }, service: a }
`)
  t.notOk('groups' in config)
  const [all, own, split, none] = routes
  t.match(all, {
    group: 'shop',
    match: { path: '/shop', hosts: ['shop.example.com'], headers: { 'x-shop': '1', 'x-both': 'group' } },
    priority: 3,
    service: 'a',
    path: { strip: true, encodedSlash: 'pass' },
    edge: { bodyLimit: 1_048_576, cors: { origin: ['https://a.example'] } },
    mesh: { timeout: 3000, retry: { attempts: 1 } },
    plugins: ['p'],
    config: { one: 1, two: 2 }
  })
  t.strictSame(own!.match, {
    path: ['/a', '/b'],
    methods: ['PUT'],
    headers: { 'x-own': '2', 'x-both': { present: true }, 'x-shop': '1' },
    cookies: { c: '3' },
    hosts: ['shop.example.com'],
    query: { a: '1' }
  })
  t.match(own, {
    priority: 0,
    service: 'b',
    path: { rewrite: { prefix: '/v2' }, encodedSlash: 'pass' },
    edge: { bodyLimit: 1_048_576, cors: false },
    mesh: { timeout: 3000, retry: false },
    plugins: ['q', 'p'],
    config: { one: 1, two: 3 }
  })
  t.notOk(Object.hasOwn(own!.path!, 'strip'))
  t.equal(split!.service, 'b')
  t.equal(split!.mesh.split!.length, 1)
  t.equal(none!.priority, 0)
  t.notOk(Object.hasOwn(none!, 'group'))
})

t.test('faults name the place in the group, once, whoever shares it', async (t) => {
  const yaml = `groups:
  g:
    match: { hosts: [h], headers: { x-a: { regex: "a" } } }
    service: nobody
    edge: { bodyLimit: 1xb, cros: {} }
    mesh: { timeout: 1s, subset: none }
    prefix: /x
  h: { edge: { bodyLimit: 2xb } }
  i: 7
routes:
  - { name: one, group: g, match: { path: /one } }
  - { name: two, group: g, match: { path: /two }, edge: { cors: { origin: 7 } } }
  - { name: three, group: g }
  - { name: four, group: k, match: { path: /four }, service: a }
  - { name: five, group: g, match: { path: /one }, service: b }
`
  t.strictSame(faultsOf(yaml), [
    '4:51: groups.g.match.headers.x-a.regex: invalid expression: it must begin with "^", since it is compared with the whole text',
    '5:14: groups.g.service: unknown service "nobody"',
    '6:24: groups.g.edge.bodyLimit: expected false or a mapping or a size such as 512b, 16kb or 10mb, found "1xb"',
    '6:29: groups.g.edge.cros: unknown key; did you mean "cors"?',
    '7:34: groups.g.mesh.subset: the service "b" has no subset "none"',
    '8:5: groups.g.prefix: unknown key; write the path of a route under match.path; path.strip removes a prefix',
    '9:27: groups.h.edge.bodyLimit: expected false or a mapping or a size such as 512b, 16kb or 10mb, found "2xb"',
    '10:6: groups.i: expected a mapping, found 7',
    '13:75: routes[1].edge.cors.origin: expected a string or a list with at least one item, found 7',
    '14:5: routes[2].match: missing key "path"',
    '15:26: routes[3].group: unknown group "k"; did you mean "g"?'
  ])
})

t.test('a group that no route has is warned of', async (t) => {
  const warnings: string[] = []
  const yaml = `${services}groups: { g: { edge: {} } }\nroutes: [{ name: a, match: { path: / }, service: a }]`
  parseConfig(yaml, 'gateway.yaml', {}, ({ path, message }) => warnings.push(`${path}: ${message}`))
  t.strictSame(warnings, ['groups.g: no effect: no route has this group'])
})

t.test('a key of a group that no route inherits is warned of', async (t) => {
  const warnings: string[] = []
  const yaml = `${services}groups:
  g:
    match: { hosts: [a.example], methods: [GET], headers: { x-a: "1", x-b: "1" } }
    service: a
    path: { strip: true, encodedSlash: pass }
    edge: { bodyLimit: 1mb, ipFilter: { deny: [192.0.2.1] } }
routes:
  - { name: one, group: g, match: { path: /one, hosts: [b.example], headers: { x-a: "2" } }, path: { rewrite: { prefix: /x } }, service: b }
  - { name: two, group: g, match: { path: /two, hosts: [c.example], headers: { x-a: "3" } }, edge: { ipFilter: false, bodyLimit: 2mb }, redirect: { to: "https://d.example" }, path: { strip: true } }`
  parseConfig(yaml, 'gateway.yaml', {}, ({ line, path, message }) => warnings.push(`${line} ${path}: ${message}`))
  const why = 'no effect: each route of this group has its own setting in place of it'
  t.strictSame(
    warnings.filter((text) => text.includes('groups')),
    [
      `4 groups.g.match.hosts: ${why}`,
      `4 groups.g.match.headers.x-a: ${why}`,
      `5 groups.g.service: ${why}`,
      `6 groups.g.path.strip: ${why}`
    ]
  )
})

t.test('a key of a group that one route inherits is not warned of', async (t) => {
  const warnings: string[] = []
  const yaml = `${services}groups: { g: { match: { headers: { x-a: "1" } }, service: a, plugins: [p] } }
plugins: [{ package: fastify, name: p, scope: routes }]
routes:
  - { name: one, group: g, match: { path: /one, headers: { x-a: "2" } } }
  - { name: two, group: g, match: { path: /two }, service: b, plugins: [p] }`
  parseConfig(yaml, 'gateway.yaml', {}, ({ path }) => warnings.push(path))
  t.strictSame(
    warnings.filter((path) => path.startsWith('groups')),
    []
  )
})

t.test('groups without the mesh', async (t) => {
  const yaml = (more: string) => `mesh: false
groups: { g: { forward: { timeout: 7s }, edge: { cors: { origin: ["https://a"] } }${more} } }
routes: [{ name: a, group: g, match: { path: / }, service: a }]`
  const [route] = parse(yaml('')).routes
  t.match(route, { mesh: { timeout: 7000 }, edge: { cors: { origin: ['https://a'] } } })
  t.match(faultsOf(yaml(', mesh: { timeout: 1s }')), [/mesh/])
})
