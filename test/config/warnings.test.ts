/** Warnings: settings without effect are reported with their position, and the gateway starts all the same. */
import t from 'tap'
import type { Fault } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

function warningsOf(yaml: string): string[] {
  const warnings: Fault[] = []
  parseConfig(yaml, 'gateway.yaml', {}, (warning) => void warnings.push(warning))
  return warnings.map(({ line, column, path, message }) => `${line}:${column}: ${path}: ${message}`)
}

t.test('an attemptTimeout that the timeout of the call ends first is warned of', async (t) => {
  t.strictSame(warningsOf('mesh: { attemptTimeout: 90s }'), [
    '1:25: mesh.attemptTimeout: 90s has no effect: the default of mesh.timeout ends the whole call after 60s'
  ])
  t.strictSame(warningsOf('mesh: { timeout: 3s, attemptTimeout: 3s }'), [
    '1:38: mesh.attemptTimeout: 3s has no effect: it equals the timeout of the whole call, which is its default'
  ])
  const service = 'services: { a: { instances: [http://h], mesh: { attemptTimeout: 2s } } }'
  t.strictSame(warningsOf(`mesh: { timeout: 2s }\n${service}`), [
    '2:65: services.a.mesh.attemptTimeout: 2s has no effect: it equals the timeout of the whole call, which is its default'
  ])
  for (const fine of ['timeout: 3s', 'attemptTimeout: 3s', 'timeout: 3s, attemptTimeout: 2s', 'timeout: 90s']) {
    t.strictSame(warningsOf(`mesh: { ${fine} }\n${service.replace('2s', '1s')}`), [], fine)
  }
})

t.test('a token endpoint that gets the secret without encryption is warned of', async (t) => {
  const text = (url: string) =>
    `services: { a: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, url: "${url}" } } } } }`
  t.strictSame(warningsOf(text('http://id.example.com/token')), [
    '1:109: services.a.mesh.credentials.oauth2.url: secrets and tokens are sent without encryption: use https'
  ])
  for (const url of [
    'https://id.example.com/token',
    'http://127.0.0.1:9/token',
    'http://[::1]/token',
    'http://localhost/'
  ]) {
    t.strictSame(warningsOf(text(url)), [], url)
  }
})

t.test('a timeout that an inherited attemptTimeout ends first is warned of', async (t) => {
  const route = (mesh: string, top: string) => `
mesh: { attemptTimeout: 3s${top} }
services: { a: { instances: [http://h] } }
routes: [{ name: slow, match: { path: / }, service: a, mesh: { timeout: 90s${mesh} } }]
`
  t.strictSame(warningsOf(route('', '')), [
    '4:73: routes[0].mesh.timeout: 90s is never reached: mesh.attemptTimeout ends the one attempt after 3s; set attemptTimeout here too'
  ])
  t.strictSame(warningsOf(route('', ', retry: false')).length, 1)
  t.strictSame(warningsOf(route(', attemptTimeout: 80s', '')), [])
  t.strictSame(warningsOf(route(', retry: { on: [gateway-error] }', '')), [], 'a retry follows a timed-out attempt')
  t.strictSame(warningsOf(route(', hedge: { after: 1s }', '')), [], 'a hedge runs beside the attempt')
  t.strictSame(warningsOf(route('', '').replace('90s', '2s')), [], 'a timeout shorter than attemptTimeout is reached')
})

t.test('a plugin with scope: routes that no route lists is warned of', async (t) => {
  const yaml = (plugins: string) => `
services: { a: { instances: [http://h] } }
routes: [{ name: one, match: { path: / }, service: a${plugins} }]
plugins: [{ package: fastify, scope: routes }]
`
  t.strictSame(warningsOf(yaml('')), [
    '4:38: plugins[0].scope: no route lists "fastify" in its "plugins", so its hooks never run'
  ])
  t.strictSame(warningsOf(yaml(', plugins: [fastify]')), [])
})

t.test('a required call that uses the response of an optional one is warned of', async (t) => {
  const route = (orders: string, products: string) => `services: { a: { instances: [http://h] } }
routes:
  - name: page
    match: { path: /page, methods: [GET] }
    compose:
      calls:
        orders: { service: a, path: /, group: o${orders} }
        products: { service: a, path: "/{calls.orders/id}", group: p${products} }
`
  const optional = ', required: false'
  t.strictSame(warningsOf(route(optional, '')), [
    '8:9: routes[0].compose.calls.products: is required and uses the response of "orders", which is not: the request fails if "orders" does; set required: false here, too'
  ])
  for (const [orders, products] of [['', ''], ['', optional], [optional, optional]] as const) {
    t.strictSame(warningsOf(route(orders, products)), [])
  } // biome-ignore format: a list
})

t.test('a limit with a name that shares its counters with none is warned of', async (t) => {
  const routes = (first: string, second: string, edge = '') => `${edge}
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: /a }, service: a, edge: { rateLimit: ${first} } }
  - { name: b, match: { path: /b }, service: a, edge: { rateLimit: ${second} } }
`
  const limit = '{ max: 5, window: 1m, name: x }'
  t.strictSame(warningsOf(routes(limit, limit.replace('5', '9'))), [])
  t.strictSame(warningsOf(routes(limit, '{ max: 5, window: 1h, name: y }')), [])
  t.strictSame(warningsOf(routes(limit, `[{ max: 5, window: 1h, name: x }, ${limit}]`)), [
    '5:97: routes[1].edge.rateLimit[0].name: no other limit with the name "x" has the same by, window, algorithm and store, so it shares no counters'
  ])
  t.equal(warningsOf(routes(limit, limit.replace('1m', '2m'))).length, 2)
  t.strictSame(warningsOf(routes(limit, limit, `edge: { rateLimit: ${limit} }`)), [])
})

t.test('groups and consumers in rules that no declared consumer has are warned of', async (t) => {
  const digest = `sha256:${'0'.repeat(64)}`
  const file = (edge: string, top = 'consumers: [{ name: bob, groups: [interns], keyAuth: [{ hash: HASH }] }]') =>
    `services: { a: { instances: [http://h] } }
routes: [{ name: one, match: { path: / }, service: a, edge: { ${edge} } }]
${top.replace('HASH', `"${digest}"`)}
`
  const warned = (edge: string, top?: string) =>
    warningsOf(file(edge, top)).map((text) => text.slice(text.indexOf(' ') + 1))
  const group = 'no declared consumer has the group "intrens"; did you mean "interns"?'
  const name = 'no consumer "bbo" is declared; did you mean "bob"?'
  const acl = 'acl: { deny: [intrens], denyConsumers: [bbo] }'
  t.strictSame(warned(`keyAuth: {}, ${acl}`), [
    `routes[0].edge.acl.deny[0]: ${group}`,
    `routes[0].edge.acl.denyConsumers[0]: ${name}`
  ])
  t.strictSame(warned('keyAuth: {}, acl: { allow: [staff, interns], allowConsumers: [bob, bbo] }'), [
    'routes[0].edge.acl.allow[0]: no declared consumer has the group "staff"',
    `routes[0].edge.acl.allowConsumers[1]: ${name}`
  ])
  const rules =
    'authorization: { default: allow, rules: [{ action: deny, groups: [intrens] }, { action: deny, consumers: ["*", bbo] }] }'
  t.strictSame(warned(`keyAuth: {}, ${rules}`), [
    `routes[0].edge.authorization.rules[0].groups[0]: ${group}`,
    `routes[0].edge.authorization.rules[1].consumers[1]: ${name}`
  ])
  const top = `edge: { keyAuth: {}, ${acl} }\nconsumers: [{ name: bob, groups: [interns], keyAuth: [{ hash: HASH }] }]`
  t.strictSame(warned('', top), [`edge.acl.deny[0]: ${group}`, `edge.acl.denyConsumers[0]: ${name}`])
  const jwt = 'jwt: { secret: 0123456789abcdef0123456789abcdef }'
  const people = 'consumers: [{ name: bob, groups: [interns] }]'
  const inRoute = [`routes[0].edge.acl.deny[0]: ${group}`]
  t.strictSame(warned(`${jwt}, ${acl}`, people), inRoute, 'tokens name other consumers, but have no groups')
  t.strictSame(
    warned(jwt, `edge: { ${acl} }\n${people}`),
    [`edge.acl.deny[0]: ${group}`],
    'so they do on one of the routes'
  )
  const login =
    'oidc: { issuer: "https://op", clientId: web, session: { secrets: [0123456789abcdef0123456789abcdef] } }'
  t.strictSame(warned(`${login}, ${acl}`, people), inRoute)
  t.strictSame(warned(`authorizer: { module: ./plugins/clock.ts }, ${acl}`, people), [], 'an authorizer gives groups')
  const issuers = ['a', 'b'].map((name) => `{ issuer: "https://${name}", secret: ${name.repeat(32)} }`).join(', ')
  const issued = (issuer: string) =>
    warned(`jwt: { issuers: [${issuers}] }`, `consumers: [{ name: bob, jwt: { sub: b, issuer: "${issuer}" } }]`)
  t.strictSame(issued('https://a'), [])
  t.strictSame(issued('https://a/'), [
    'consumers[0].jwt.issuer: no route accepts the issuer "https://a/" by jwt, so nobody is this consumer; did you mean "https://a"?'
  ])
  t.strictSame(warned(`keyAuth: {}, ${acl}`, 'consumers: []').length, 1, 'only of keyAuth without keys')
  const plugin =
    'plugins: [{ package: fastify, provides: [consumer] }]\nconsumers: [{ name: bob, keyAuth: [{ hash: HASH }] }]'
  t.strictSame(warned(`keyAuth: {}, ${acl}`, plugin), [], 'a plugin names others')
  const own = `consumers: [{ name: bob, groups: [interns], keyAuth: [{ hash: HASH }], edge: { ${acl} } }]`
  t.strictSame(warned('keyAuth: {}, acl: { allow: [interns] }', own), [
    `consumers[0].edge.acl.deny[0]: ${group}`,
    `consumers[0].edge.acl.denyConsumers[0]: ${name}`
  ])
  const split = (edge: string) => `services: { a: { instances: [http://h] } }
routes:
  - name: one
    match: { path: / }
    split: [{ service: a, match: { consumers: [bob, bbo] } }, { service: a, weight: 1 }]
    edge: { ${edge} }
consumers: [{ name: bob, keyAuth: [{ hash: "${digest}" }] }]
`
  t.strictSame(warningsOf(split('keyAuth: {}')), [`5:53: routes[0].split[0].match.consumers[1]: ${name}`])
  t.strictSame(warningsOf(split(`keyAuth: {}, authentication: { require: any }, ${jwt}`)), [], 'tokens name others')
})

t.test('a page after the logout that needs a login', (t) => {
  const oidc = (redirect: string, more = '') =>
    `oidc: { issuer: "https://op", clientId: web, session: { secrets: [0123456789abcdef0123456789abcdef] }, logout: { redirect: ${redirect} }${more} }`
  const warned = (edge: string, routes = '') =>
    warningsOf(`services: { a: { instances: [http://h] } }
edge: { ${edge} }
routes: [{ name: one, match: { path: / }, service: a }${routes}]
`).filter((text) => text.includes('logout'))
  const [warning = '', ...others] = warned(oidc('/goodbye?a=1'))
  t.match(
    warning,
    /edge\.oidc\.logout\.redirect: route one has this path and needs a login, .*; add a route for the path/
  )
  t.strictSame(others, [])
  const open = (path: string) => `, { name: bye, match: { path: ${path} }, service: a, edge: { oidc: false } }`
  t.strictSame(warned(oidc('/goodbye'), open('/goodbye')), [])
  t.equal(warned(oidc('/goodbye'), open('/good')).length, 1)
  t.strictSame(warned(oidc('/goodbye'), open('/:page')), [], 'a pattern may have the path')
  t.strictSame(warned(oidc('https://www.example.com/')), [])
  t.strictSame(warned(oidc('/goodbye', ', mode: shadow')), [])
  t.strictSame(warned(`${oidc('/goodbye')}, authentication: { anonymous: guest }`), [])
  t.end()
})

t.test('a shared limit that is smaller than the number of nodes', (t) => {
  const file = (max: number) => `services: { a: { instances: [http://h] } }
edge: { gatewayNodes: 3 }
routes: [{ name: one, match: { path: / }, service: a, edge: { rateLimit: { max: ${max}, window: 1m, share: true } } }]
`
  t.strictSame(warningsOf(file(3)), [])
  const [warning = ''] = warningsOf(file(2))
  t.match(warning, /rateLimit\.max: each node allows at least 1, so 3 nodes \(edge\.gatewayNodes\) allow 3 together$/)
  t.end()
})

t.test('a shadow mode for all concerns is sent to each of them', (t) => {
  const faultsOf = (text: string): string[] => {
    try {
      parseConfig(text, 'gateway.yaml')
      return []
    } catch (error) {
      return (error as { faults: { path: string; message: string }[] }).faults.map(
        ({ path, message }) => `${path}: ${message}`
      )
    }
  }
  const each = 'unknown key; write mode: shadow within each concern: CONCERN: { mode: shadow }'
  t.strictSame(faultsOf('edge: { mode: shadow }'), [`edge.mode: ${each}`])
  t.strictSame(faultsOf('edge: { shadow: true }'), [`edge.shadow: ${each}`])
  t.strictSame(faultsOf('mode: shadow'), [`mode: ${each}`])
  t.strictSame(faultsOf('edge: { keyAuth: { dryRun: true } }'), [
    'edge.keyAuth.dryRun: unknown key; write mode: shadow'
  ])
  t.end()
})

t.test('keepAuthorization where no token stays in Authorization is warned of', async (t) => {
  const route = (edge: string) => `
services: { a: { instances: [http://h] } }
edge: { jwt: { secret: abcdefghijabcdefghijabcdefghijabcdefghij, ${edge}
routes: [{ name: one, match: { path: / }, service: a }, { name: two, match: { path: /two }, service: a }]
`
  const at = '3:66: edge.jwt.keepAuthorization'
  t.strictSame(warningsOf(route('keepAuthorization: true } }')), [
    `${at}: has no effect: only a verified token in Authorization reaches the service; set from: { header: NAME } for a token in another header`
  ])
  const fine = 'keepAuthorization: true, from: { header: x-token } }'
  t.strictSame(warningsOf(route(`${fine} }`)), [])
  const beside = `${fine}, introspection: { url: 'http://h', clientId: a, clientSecret: b }, authentication: { require: any } }`
  t.strictSame(warningsOf(route(beside)), [`${at}: has no effect beside introspection, which reads Authorization`])
  const oidc = `oidc: { issuer: 'https://h', clientId: a, session: { secrets: [abcdefghijabcdefghijabcdefghijabcdefghij] }, forwardAccessToken: true, keepAuthorization: true } }`
  t.match(warningsOf(route(`from: { header: x-token } }, authentication: { require: any }, ${oidc}`)), [
    /edge\.oidc\.keepAuthorization: has no effect: forwardAccessToken replaces Authorization$/
  ])
})

t.test('any origin with credentials is warned of', async (t) => {
  t.strictSame(warningsOf('edge: { cors: { origin: "*", credentials: true } }'), [
    '1:43: edge.cors.credentials: any page on the web can act as the logged-in user; list the origins'
  ])
  t.strictSame(warningsOf('edge: { cors: { origin: "*" } }'), [])
  t.strictSame(warningsOf(`edge: { cors: { origin: ['null'], credentials: true, privateNetwork: true } }`), [
    '1:48: edge.cors.credentials: any page on the web can act as the logged-in user: any page can have the origin "null"; list the origins',
    '1:70: edge.cors.privateNetwork: any page on the web can call the private network: any page can have the origin "null"; list the origins'
  ])
  t.match(warningsOf('edge: { cors: { origin: "*", privateNetwork: true } }'), [/can call the private network; list/])
})

t.test('rules for headers, query and cookies that an earlier or later rule makes needless are warned of', async (t) => {
  const rules = (name: string, request: object) =>
    warningsOf(JSON.stringify({ edge: { [name]: name === 'query' ? request : { request } } })).map((each) =>
      each.replace(/^1:\d+: edge\.(?:query|\w+\.request)\./, '')
    )
  const all = {
    only: ['x-a', 'x-b'],
    remove: ['x-b', 'x-c', 'x-s'],
    rename: { 'x-b': 'x-n', 'x-d': 'x-m', 'x-a': 'x-s' },
    set: { 'x-s': '1', 'x-t': '{headers.x-t}' },
    add: { 'x-s': '2', 'x-t': '2', 'x-c': '1' }
  }
  const always = [
    'only[1]: "remove" removes it all the same',
    'remove[2]: has no effect: "set" replaces it',
    'rename.x-b: has no effect: "remove" removes it before',
    'rename.x-a: "set" replaces "x-s", so this only removes "x-a": write it under "remove"',
    'add.x-s: has no effect: "set" gives it a value'
  ]
  t.strictSame(rules('headers', all), always)
  t.strictSame(rules('headers', { remove: ['x_a'], set: { 'X-A': '1' }, add: { 'x.a': ['1'] } }), [
    'remove[0]: has no effect: "set" replaces it',
    'add["x.a"]: has no effect: "set" gives it a value'
  ])
  for (const name of ['query', 'cookies']) {
    t.strictSame(
      rules(name, all).sort(),
      [
        ...always,
        'remove[1]: has no effect: "only" removes it',
        'rename.x-d: has no effect: "only" removes it before',
        'add.x-t: has no effect: "set" decides on it'
      ].sort(),
      name
    )
  }
  for (const fine of [
    { only: ['a'], add: { b: '1' }, set: { c: '{headers.d|1}' } },
    { remove: ['a'], add: { a: '1' } },
    { rename: { a: 'b' }, set: { a: '1' }, add: { b: '1' } },
    { only: ['a'], rename: { a: 'b' } }
  ]) {
    for (const name of ['headers', 'query', 'cookies']) t.strictSame(rules(name, fine), [], JSON.stringify(fine))
  }
  t.strictSame(warningsOf('edge: { headers: { response: { set: { X-a: b, x_b: c }, add: { x-a: c, x-b: c } } } }'), [
    '1:64: edge.headers.response.add.x-a: has no effect: "set" gives it a value'
  ])
})

t.test('cookies of a service that are removed and have attributes are warned of', async (t) => {
  t.strictSame(warningsOf('edge: { cookies: { response: { remove: [a], names: [b, a], secure: true } } }'), [
    '1:56: edge.cookies.response.names[1]: has no effect: "remove" removes it'
  ])
})

t.test('rules for bodies that another rule makes needless are warned of', async (t) => {
  const rules = (request: object) =>
    warningsOf(JSON.stringify({ edge: { body: { request } } })).map((each) =>
      each.replace(/^1:\d+: edge\.body\.request\.?/, '')
    )
  t.strictSame(
    rules({
      only: ['/a', '/b/c', '/l/*/id'],
      remove: ['/b', '/a/x', '/d', '/l/0/name'],
      rename: { '/b/c': '/n', '/e': '/m', '/a/y': '/s' },
      set: { '/s': 1, '/t': '{headers.x-t}' },
      add: { '/s': 2, '/t': 2 }
    }),
    [
      'only[1]: "/b" of "remove" removes it all the same',
      'remove[2]: has no effect: "only" removes it',
      'remove[3]: has no effect: "only" removes it',
      'rename["/b/c"]: has no effect: "/b" of "remove" removes it before',
      'rename["/e"]: has no effect: "only" removes it before',
      'rename["/a/y"]: "set" replaces "/s", so this only removes "/a/y": write it under "remove"',
      'add["/s"]: has no effect: "set" gives it a value'
    ]
  )
  t.strictSame(rules([{ only: ['/a'] }, { remove: ['/b'] }]), [], 'rules of a list are apart')
  t.strictSame(rules({ only: ['/*/id'], remove: ['/a/id'], rename: { '': '/all' } }), [])
  t.strictSame(rules({ set: { '/a': { b: '{headers.x}' } }, add: { '/a': 1 } }), [])
})

t.test('media types that do not exist are warned of', async (t) => {
  const content = { 'aplication/json': {}, 'application/json': {}, 'chemical/x-pdb': true, 'x-mine/any': true }
  const edge = {
    body: { request: { types: ['aplication/json', 'text/*', '*/*'], remove: ['/a'] } },
    compression: { types: ['aplication/json', 'text/*', '*/*', 'foo/bar'] },
    validation: { body: { content } }
  }
  const found = warningsOf(JSON.stringify({ edge })).map((each) => each.replace(/^1:\d+: /, ''))
  const typo = 'no registered media type begins with "aplication/"; did you mean "application"?'
  t.strictSame(found, [
    `edge.body.request.types[0]: ${typo}`,
    `edge.compression.types[0]: ${typo}`,
    'edge.compression.types[3]: no registered media type begins with "foo/"',
    `edge.validation.body.content["aplication/json"]: ${typo}`
  ])
})

t.test('a schema of parameters that no path has is warned of at top level', async (t) => {
  const yaml = (more: string) => `
edge: { validation: { path: { properties: { id: { type: integer }, idd: {} }, required: [id] } } }
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: /a/:id }, service: a }
  - { name: b, match: { path: /b/:idd }, service: a, edge: { validation: false } }
${more}`
  t.strictSame(warningsOf(yaml('')), [
    '2:68: edge.validation.path.properties.idd: no route has "idd" in its match.path; did you mean "id"?'
  ])
  t.strictSame(warningsOf(yaml('  - { name: c, match: { path: [/c, "/d/:idd"] }, service: a }')), [])
})

t.test('formats that are misspelt are warned of, and formats of others are not', async (t) => {
  const yaml = (format: string) =>
    `edge: { validation: { query: { properties: { a: { type: string, format: ${format} } } } } }`
  t.strictSame(warningsOf(yaml('emial')), [
    '1:73: edge.validation.query.properties.a.format: unknown format "emial"; did you mean "email"?; the keyword is not checked'
  ])
  for (const format of ['email', 'regex', 'iri', 'data', 'vin', 'iso-4217']) t.strictSame(warningsOf(yaml(format)), [])
})

t.test('the schema of a group may have the parameters of all of its routes', async (t) => {
  const yaml = (names: string) => `
services: { a: { instances: [http://h] } }
groups: { g: { service: a, edge: { validation: { path: { properties: { ${names} } } } } } }
routes:
  - { name: a, group: g, match: { path: /a/:id } }
  - { name: b, group: g, match: { path: /b/:item } }
`
  t.strictSame(warningsOf(yaml('id: {}, item: {}')), [])
  t.throws(() => warningsOf(yaml('id: {}, items: {}')), {
    message:
      /^gateway\.yaml:3:80: groups\.g\.edge\.validation\.path\.properties\.items: match\.path has no parameter "items"; did you mean "item"\?\n1 fault/
  })
})

t.test('members of composed responses that are picked and dropped, or not picked, are warned of', async (t) => {
  const warningsOfCall = (reshaping: object) => {
    const calls = { x: { service: 'a', path: '/', ...reshaping } }
    const routes = [{ name: 'c', match: { path: '/c', methods: ['GET'] }, compose: { calls } }]
    return warningsOf(JSON.stringify({ services: { a: { instances: ['http://h'] } }, routes })).map((each) =>
      each.replace(/^1:\d+: routes\[0\]\.compose\.calls\.x\./, '')
    )
  }
  t.strictSame(
    warningsOfCall({ pick: ['a', '/b/c', '/l/*/id'], drop: ['b', 'd', '/a/x'], rename: { e: 'f', b: 'g', a: 'h' } }),
    [
      'pick[1]: "drop" removes "b" all the same',
      'drop[1]: has no effect: "pick" leaves it out',
      'rename.e: has no effect: "pick" leaves it out before',
      'rename.b: has no effect: "drop" removes it before'
    ]
  )
  t.strictSame(warningsOfCall({ pick: ['/*/id'], drop: ['/a/x', '/a/id/y'], rename: { '/a/id': '/a/key' } }), [
    'drop[0]: has no effect: "pick" leaves it out'
  ])
  t.strictSame(warningsOfCall({ drop: ['a'], rename: { b: 'c' } }), [])
})
