/** Faults of `edge.authorization`: malformed conditions, and rules that can never match or never matter. */
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import { secret } from '../../helpers/edge/tokens.ts'
import { configOf } from '../../helpers/gateway.ts'

/** Returns the faults of rules on one route, relative to the rules. */
function faultsOf(
  rules: object[],
  more: object = {},
  match: object = { path: '/' },
  edge: object = { jwt: { secret } }
) {
  const authorization = { rules, ...more }
  const routes = [{ name: 'a', match, service: 'a', edge: { ...edge, authorization } }]
  try {
    configOf({ services: { a: { instances: ['http://h'] } }, routes })
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.faults.map(({ path, message }) => `${path.replace('routes[0].edge.authorization.', '')}: ${message}`)
    }
    throw error
  }
  return []
}

const allow = (conditions: object) => ({ action: 'allow', ...conditions })
const deny = (conditions: object) => ({ action: 'deny', ...conditions })

t.test('malformed conditions', async (t) => {
  const spelling = 'an expression is written /^…$/, for the whole value: '
  const decoded = 'a path is compared decoded: it has no "//", "%", "?", "#", ";", backslash, "." or ".." segment'
  for (const [conditions, ...faults] of [
    [{}, 'rules[0]: has no condition, so it decides all requests; write its action as "default"'],
    [{ paths: ['/a%20b'] }, `rules[0].paths[0]: ${decoded}`],
    [{ paths: ['/a/../b'] }, `rules[0].paths[0]: ${decoded}`],
    [{ paths: [{ exact: '/a?b' }] }, `rules[0].paths[0]: ${decoded}`],
    [{ paths: ['/a/*/b'] }, 'rules[0].paths[0]: "*" may only be the last segment; write ":name" for one segment'],
    [{ paths: ['/a*'] }, 'rules[0].paths[0]: "a*" is neither a text nor ":name"; write "*" for all that is below a path'],
    [{ paths: ['/a/**'] }, 'rules[0].paths[0]: "**" is neither a text nor ":name"; write "*" for all that is below a path'],
    [{ paths: ['/{id}'] }, 'rules[0].paths[0]: "{id}" is neither a text nor ":name"; write "*" for all that is below a path'],
    [{ paths: ['a'] }, 'rules[0].paths[0]: expected a path that starts with / or a mapping, found "a"'],
    [{ methods: ['get'] }, 'rules[0].methods[0]: expected a method in capitals, found "get"'],
    [{ headers: { 'x-a': '/^a(?=b)$/' } }, 'rules[0].headers.x-a: not a regular expression that is supported here: "(?" other than "(?:" is not supported'],
    [{ headers: { 'x-a': '/bot/' } }, `rules[0].headers.x-a: ${spelling}/^.*bot.*$/`],
    [{ headers: { 'x-a': '/bot|spider/' } }, `rules[0].headers.x-a: ${spelling}/^.*(bot|spider).*$/`],
    [{ headers: { 'x-a': ['a', '/^a/'] } }, `rules[0].headers.x-a[1]: ${spelling}/^a.*$/`],
    [{ headers: { 'x-a': '/.*bot.*/' } }, `rules[0].headers.x-a: ${spelling}/^.*bot.*$/`],
    [{ headers: { 'x-a': '/^.*bot.*/' } }, `rules[0].headers.x-a: ${spelling}/^.*bot.*$/`],
    [{ headers: { 'x-a': '/^.*bot.*$/i' } }, `rules[0].headers.x-a: ${spelling}/^.*bot.*$/; there are no flags: write [Aa] for a letter of either case`],
    [{ headers: { 'x-a': '^.*bot.*$' } }, `rules[0].headers.x-a: ${spelling}/^.*bot.*$/`],
    [{ headers: { 'x-a': '*bot.x*' } }, `rules[0].headers.x-a: ${spelling}/^.*bot\\.x.*$/`],
    [{ headers: { 'x-a': { regex: '^a$' } } }, 'rules[0].headers.x-a: expected true, false, a value, a list of values or an expression "/^…$/", found a mapping'],
    [{ claims: { role: '/^a.*$/' } }, 'rules[0].claims.role: expected a list with at least one item or a text that is no expression or true or false or a number, found "/^a.*$/"'],
    [{ headers: { 'x-forwarded-for': '10.0.0.1' } }, 'rules[0].headers.x-forwarded-for: clients can send any value of this header; write "addresses" for their address'],
    [{ headers: { 'X_Real.IP': true } }, 'rules[0].headers["X_Real.IP"]: clients can send any value of this header; write "addresses" for their address'],
    [{ headers: { host: 'a' } }, 'rules[0].headers.host: belongs to the connection; rules cannot be about it'],
    [{ addresses: ['10.0.0.1/8'] }, 'rules[0].addresses[0]: "10.0.0.1/8" is an address within a network: write "10.0.0.0/8", or the address without "/8"'],
    [{ time: { zone: 'Europe/Berlinn' } }, 'rules[0].time: "Europe/Berlinn" is no time zone; write one such as Europe/Berlin'],
    [{ time: { from: '08:00', to: '08:00' } }, 'rules[0].time: from 08:00 to 08:00 is no time'],
    [{ time: { from: '8:00' } }, 'rules[0].time.from: expected a time such as 08:30, found "8:00"'],
    [{ scopes: ['a b'] }, 'rules[0].scopes[0]: expected a scope, without blanks and quotes, found "a b"']
  ] as const) {
    t.strictSame(faultsOf([allow(conditions)]), faults)
  } // biome-ignore format: a table
  t.strictSame(faultsOf([allow({ time: { days: ['mon'] } }), allow({ headers: { 'x-a': '/a/b' } })]), [])
  const plain = ['*/*', 'text/*', '*', 'a^b', '/a']
  t.strictSame(faultsOf([allow({ time: { days: ['mon'] } }), allow({ headers: { accept: plain } })]), [])
})

t.test('rules about the caller need a concern that identifies it', async (t) => {
  for (const conditions of [{ consumers: ['a'] }, { groups: ['a'] }, { scopes: ['a'] }, { claims: { a: 1 } }]) {
    const [fault = ''] = faultsOf([allow({ paths: ['/a'] }), allow(conditions)], {}, { path: '/' }, {})
    t.match(fault, /^rules: (consumer: nothing on this route identifies the consumer|claims: nothing .* claims); add /)
  }
  t.strictSame(faultsOf([allow({ paths: ['/a'] })], {}, { path: '/' }, {}), [])
})

t.test('rules of another shape are faults, too', async (t) => {
  for (const rules of [undefined, null, 7, [null], [7], [[]], {}])
    t.equal(faultsOf(rules as never).length > 0, true, JSON.stringify(rules))
})

t.test('rules that can never decide', async (t) => {
  const covered = (index: number, by: number) => [
    `rules[${index}]: can never decide: rules[${by}] before it has all of its requests`
  ]
  for (const [first, second] of [
    [{ paths: ['/a'] }, { paths: ['/a'] }],
    [{ paths: ['/a'] }, { paths: ['/a/b', '/a/:id', '/a/*', { exact: '/a' }] }],
    [{ paths: ['/a/*'] }, { paths: ['/a/b', '/a/:id', '/a/b/*'] }],
    [{ paths: ['/:x/b'] }, { paths: [{ exact: '/a/b' }] }],
    [{ methods: ['GET', 'POST'] }, { methods: ['HEAD', 'POST'], paths: ['/a'] }],
    [{ consumers: ['*'] }, { consumers: ['alice'] }],
    [{ groups: ['a', 'b'] }, { groups: ['b'] }],
    [{ scopes: ['a'] }, { scopes: ['b', 'a'] }],
    [{ claims: { a: [1, 2] } }, { claims: { a: 2, b: 1 } }],
    [{ time: { zone: 'Europe/Berlin', from: '08:00' } }, { time: { from: '08:00', zone: 'Europe/Berlin' } }]
  ] as const) {
    for (const action of [allow, deny]) {
      t.strictSame(
        faultsOf([allow(first), action(second), allow({ paths: ['/z/y'] })]),
        covered(1, 0),
        JSON.stringify(second)
      )
    }
  }
  for (const [first, second] of [
    [{ headers: { a: ['1', '2'] } }, { headers: { a: '1' } }],
    [{ addresses: ['10.0.0.0/8', 'unix'] }, { addresses: ['10.1.0.0/16', 'unix', '10.1.1.1'] }]
  ]) {
    t.strictSame(faultsOf([allow(first!), allow(second!), allow({ paths: ['/z'] })]), covered(1, 0))
    t.strictSame(
      faultsOf([allow(first!), deny(second!), allow({ paths: ['/z'] })]),
      [],
      'the rules read odd requests differently'
    )
  }
  for (const [first, second] of [
    [{ paths: ['/a/b'] }, { paths: ['/a'] }],
    [{ paths: ['/a/*'] }, { paths: ['/a'] }],
    [{ paths: [{ exact: '/a' }] }, { paths: ['/a'] }],
    [{ paths: ['/a/:id'] }, { paths: ['/a/b'] }],
    [{ paths: ['/a'] }, { methods: ['GET'] }],
    [{ paths: ['/a'], methods: ['GET'] }, { paths: ['/a'] }],
    [{ scopes: ['a', 'b'] }, { scopes: ['a'] }],
    [{ claims: { a: 1 } }, { claims: { a: '1' } }],
    [{ consumers: ['alice'] }, { consumers: ['*'] }]
  ]) {
    t.strictSame(
      faultsOf([allow(first!), deny(second!), allow({ paths: ['/z'] })]),
      [],
      JSON.stringify([first, second])
    )
  }
  const named = [{ name: 'all', ...allow({ paths: ['/'] }) }, deny({ paths: ['/a'] })]
  t.strictSame(faultsOf(named), ['rules[1]: can never decide: all before it has all of its requests'])
})

t.test('rules that never matter', async (t) => {
  const useless = (index: number, action: string) =>
    `rules[${index}]: has no effect: "default: ${action}" decides the same, and no other rule follows`
  t.strictSame(faultsOf([allow({ paths: ['/a'] }), deny({ paths: ['/b'] })]), [useless(1, 'deny')])
  t.strictSame(faultsOf([deny({ paths: ['/a'] }), allow({ paths: ['/b'] })], { default: 'allow' }), [
    useless(1, 'allow')
  ])
  t.strictSame(faultsOf([deny({ paths: ['/b'] }), deny({ paths: ['/c'] })]), [useless(0, 'deny'), useless(1, 'deny')])
  t.strictSame(faultsOf([deny({ paths: ['/a'] }), allow({ paths: ['/'] })]), [])
  t.equal(faultsOf([]).length, 1)
})

t.test('paths and methods that the route does not have', async (t) => {
  const match = { path: '/api/orders', methods: ['GET', 'POST'] }
  t.strictSame(
    faultsOf([allow({ paths: ['/orders', '/api', '/api/orders/7', '/:x', '/:x/*', '/api/:id'] })], {}, match),
    [
      'rules[0].paths[0]: can never match: the route is for /api/orders',
      'rules[0].paths[3]: can never match: the route is for /api/orders'
    ]
  )
  t.strictSame(faultsOf([allow({ methods: ['DELETE', 'PUT'] })], {}, match), [
    'rules[0].methods: can never match: the route takes only GET, POST'
  ])
  t.strictSame(faultsOf([allow({ methods: ['HEAD'] })], {}, match), [])
})
