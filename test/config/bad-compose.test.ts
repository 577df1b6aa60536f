// Composed routes that must be refused, with every fault as it is reported.
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

const base = `services: { a: { instances: [http://h] } }
routes:
  - name: c
    match: { path: "/c/:id", methods: [GET] }
`

/** Returns the faults of a route with these lines. */
function faultsOf(lines: string, text = base): string[] {
  try {
    parseConfig(text + lines, 'gateway.yaml', {})
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ line, column, path, message }) => `${line}:${column}: ${path}: ${message}`)
  }
}

/** Returns the faults of a route with one call with these keys. */
const ofCall = (keys: string, more = '') => {
  const own = ['service: a', 'path: /'].filter((key) => !keys.includes(key.slice(0, key.indexOf(' '))))
  return faultsOf(`    compose: { calls: { x: { ${[...own, keys].join(', ')} }${more} } }\n`)
}

const only = (keys: string, fault: string, more = '') => {
  t.strictSame(
    ofCall(keys, more).map((text) => text.replace(/^\d+:\d+: routes\[0\]\.compose\.calls\./, '')),
    [fault],
    keys
  )
}

t.test('a sound route', async (t) => t.strictSame(ofCall('group: g'), []))

t.test('services, calls and references', async () => {
  only('service: b', 'x.service: unknown service "b"; did you mean "a"?')
  only(
    'query: { q: "{calls.stok/id}" }',
    'x.query.q: "{calls.stok/id}": there is no call "stok"; did you mean "stock"?',
    ', stock: { service: a, path: /, group: z }'
  )
  only('query: { q: "{calls.x/id}" }', 'x.query.q: "{calls.x/id}": a call cannot use its own response')
  only('query: { q: "{params.ix}" }', 'x.query.q: "{params.ix}": the path has no parameter ":ix"; did you mean "id"?')
  only('query: { q: "{parms.id}" }', 'x.query.q: unknown reference "{parms.id}"; did you mean "params."?')
  only(
    'query: { q: "{calls.x.id}" }',
    'x.query.q: unknown reference "{calls.x.id}"; of a response there are {calls.x/pointer}, {calls.x.status} and {calls.x.headers.NAME}'
  )
  only('query: { q: "{a" }', 'x.query.q: "{" has no counterpart in "{a"; write "{{" for the character itself')
  only(
    'method: POST, body: { deep: ["a}"] }',
    'x.body.deep[0]: "}" has no counterpart in "a}"; write "}}" for the character itself'
  )
  only(
    'query: { q: "{headers.x-forwarded-for}" }',
    'x.query.q: "{headers.x-forwarded-for}": a client may send any value in this header; the gateway sends its own to services'
  )
  only('query: { q: "{headers.a b}" }', 'x.query.q: "a b" is not the name of a header')
})

t.test('cycles', async (t) => {
  const lines = `    compose:
      calls:
        x: { service: a, path: "/{calls.z/id}", group: x }
        y: { service: a, path: "/{calls.x/id}", group: y }
        z: { service: a, path: "/{calls.y/id}", group: z }
`
  t.strictSame(faultsOf(lines), ['7:9: routes[0].compose.calls.x: calls wait for each other: x → z → y → x'])
})

t.test('requests', async () => {
  only('path: "/a?b=c"', 'x.path: a path must not contain "?"; write the query under "query"')
  only('path: "/a/../b"', 'x.path: a path must not contain "/.."')
  only('path: "/{params.id}//b"', 'x.path: a path must not contain "//"')
  only('path: a', 'x.path: expected a path that starts with /, found "a"')
  only('body: 1', 'x.body: a GET has no body; set method: POST')
  only('headers: { Host: b }', 'x.headers.Host: the gateway sets this header itself')
  only('headers: { X-Request-Id: b }', 'x.headers.X-Request-Id: the gateway sets this header itself')
  only('headers: { content-length: "1" }', 'x.headers.content-length: the gateway sets this header itself')
  only('headers: { x-a: "a\\r\\nb: c" }', 'x.headers.x-a: a header has visible ASCII characters only')
  only('timeout: 20s', 'x.timeout: longer than compose.timeout, which ends all calls')
  only('timeout: 1', 'x.timeout: expected a duration such as 250ms, 15s or 5m, found 1')
  only('mesh: { balance: random }', 'x.mesh.balance: unknown key; it can only be set for services')
  only(
    'service: a, mesh: { fallback: [{ service: b }] }',
    'x.mesh.fallback[0].service: unknown service "b"; did you mean "a"?'
  )
  only(
    'mesh: { subset: eu }',
    'x.mesh.subset: the service "a" has no subset "eu"',
    ', other: { service: a, path: /o, group: o }'
  )
  only('allow: [id]', 'x.allow: unknown key; write the members to keep under "pick"')
  only('url_pattern: /a', 'x.url_pattern: unknown key; write the path of the call under "path"')
  const deep = `${'['.repeat(40)}1${']'.repeat(40)}`
  only(`method: POST, body: ${deep}`, 'x.body: the body of a call has more than 32 levels')
  only('pth: /', 'x.pth: unknown key; did you mean "path"?')
})

t.test('parts', async () => {
  only('group: g', 'y.group: the call "x" has its part there, too', ', y: { service: a, path: /, group: g }')
  only('group: g', 'y.at: the call "x" has its part there, too', ', y: { service: a, path: /, at: /g }')
  only('group: g, at: /g', 'x.at: a part has either a group or a place, not both')
  only(
    'pick: [id, name]',
    'y.pick[1]: the call "x" has a member "name", too',
    ', y: { service: a, path: /, pick: [no, name] }'
  )
  only(
    'pick: [name]',
    'y.pick[0]: the call "x" has a member "name", too',
    ', y: { service: a, path: /, pick: [n], rename: { n: name } }'
  )
  only('as: text', 'x: a text needs a "group" or a place ("at") in the response')
  only('default: {}', 'x.default: no effect without required: false')
  only('passStatus: [404], required: false', 'x.passStatus: no effect with required: false')
  only('passStatus: [500]', 'x.passStatus[0]: expected an integer from 400 to 499, found 500')
  only('include: false', 'x.include: nothing uses the response of this call')
  only(
    'include: false, pick: [a], method: POST',
    'x.pick: no effect with include: false',
    ', y: { service: a, path: /, group: y }'
  )
  only('rename: { /a/*/b: /c/*/d }', 'x.rename["/a/*/b"]: "/a/*/b" and "/c/*/d" must be equal up to the last "*"')
  only('edit: [{ move: a }]', 'x.edit[0]: missing key "to" for "move"')
  only('edit: [{ move: a, to: b, delete: c }]', 'x.edit[0]: a step has one of move, delete, append and flatten')
  only('edit: [{ delete: a, to: b }]', 'x.edit[0]: "delete" has no "to"')
  only('edit: [{ flatten: /a/*/b, to: /a/* }]', 'x.edit[0]: "to" of "flatten" is one list, without "*"')
  only('pick: ["/a//b"]', 'x.pick[0]: expected a member or a JSON pointer such as /address/city, found "/a//b"')
})

t.test('without the mesh', async (t) => {
  const lines = '    compose: { calls: { x: { service: a, path: /, mesh: { timeout: 1s } } } }\n'
  t.strictSame(faultsOf(lines, `mesh: false\n${base}`), [
    '6:51: routes[0].compose.calls.x.mesh: its concerns need the mesh: set timeout of the call, or remove "mesh: false"'
  ])
})

t.test('the caller', async (t) => {
  const fault =
    'templates use the consumer, but nothing on this route identifies it; add mtlsAuth, keyAuth, hmacAuth, messageSignature, basicAuth, jwt, introspection, authorizer, oidc, forwardAuth or a plugin that declares provides: [consumer]'
  t.match(ofCall('query: { q: "{consumer.id}" }'), [`5:5: routes[0].compose: ${fault}`])
  const noToken =
    'templates use the claims, but nothing on this route verifies a token with claims; add jwt, introspection, oidc or a plugin that declares provides: [consumer]'
  t.match(ofCall('query: { q: "{claims/sub}" }'), [`5:5: routes[0].compose: ${noToken}`])
  const jwt = '    edge: { jwt: { secret: a-secret-that-is-long-enough-for-this } }\n'
  t.strictSame(
    faultsOf(`${jwt}    compose: { calls: { x: { service: a, path: /, query: { q: "{consumer.id}" } } } }\n`),
    []
  )
})

t.test('the route', async (t) => {
  const calls = 'compose: { calls: { x: { service: a, path: /, group: x } } }'
  const more: [keys: string, fault: string][] = [
    [`service: a\n    ${calls}`, 'service: a route has either a service or calls; name the service in compose.calls'],
    [`split: [{ service: a, weight: 1 }]\n    ${calls}`, 'split: a route has either a split or calls'],
    [`via: http-proxy\n    ${calls}`, 'via: a composed route is not proxied'],
    [`path: { strip: /c }\n    ${calls}`, 'path.strip: no effect with compose: each call has its own path'],
    [
      `edge: { responsePath: raw }\n    ${calls}`,
      'edge.responsePath: cannot be set with compose: the response is not that of a service'
    ]
  ]
  for (const [keys, fault] of more)
    t.strictSame(
      faultsOf(`    ${keys}\n`).map((text) => text.replace(/^\d+:\d+: routes\[0\]\./, '')),
      [fault],
      keys
    )
  const without = base.replace(', methods: [GET]', '')
  t.strictSame(faultsOf(`    ${calls}\n`, without), [
    '4:12: routes[0].match: a composed route needs methods, such as methods: [GET]: it makes the same calls for each'
  ])
  t.strictSame(faultsOf('    compose: { calls: {} }\n'), [
    '5:23: routes[0].compose.calls: expected a mapping with at least one key, found an empty mapping'
  ])
  const response = (text: string) =>
    faultsOf(`    compose: { calls: { x: { service: a, path: /, required: false } }, response: { ${text} } }\n`).map(
      (each) => each.replace(/^.*?response\./, '')
    )
  t.strictSame(response('statusOf: y'), ['statusOf: there is no call "y"; did you mean "x"?'])
  t.strictSame(response('statusOf: x'), ['statusOf: the call "x" is not required'])
  t.strictSame(response('headers: { connection: close }'), ['headers.connection: the gateway sets this header itself'])
  t.strictSame(response('headers: { x-a: "{calls.y/a}" }'), [
    'headers.x-a: "{calls.y/a}": there is no call "y"; did you mean "x"?'
  ])
  t.strictSame(response('edit: [{}]'), ['edit[0]: a step has one of move, delete, append and flatten'])
})

t.test('another route is compared with one whose calls have faults', async (t) => {
  const guarded = `services: { a: { instances: [http://h] } }
routes:
  - { name: guarded, service: a, match: { path: /api/x, methods: [GET] }, edge: { jwt: { secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256] } } }
  - name: open
    match: { path: /api/*, methods: [GET] }
`
  t.match(faultsOf('    compose: { calls: { x: ~ } }\n', guarded), [/compose.calls.x: expected a mapping/])
})
