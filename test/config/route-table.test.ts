import t from 'tap'
import { hostKey, writtenHostKey } from '../../config/host-name.ts'
import { paramNames, paramValues, pathPatterns } from '../../config/path-pattern.ts'
import type { PathReadings } from '../../config/path-reading.ts'
import { readPath } from '../../config/path-reading.ts'
import { RouteTable } from '../../config/route-table.ts'
import type { RouteMatch } from '../../config/schema.ts'

const guarded: PathReadings = { case: 'guard', trailingSlash: 'guard', trailingDot: 'guard' }

interface Spec {
  readonly match: RouteMatch
  readonly priority?: number
  readonly protection?: string
  readonly answersPreflights?: boolean
}

/** Facts of a request without headers and query, besides method, host and path. */
const bare = { headers: {}, url: '/', address: '' }

/** A table of routes by their names; a conflict of routes a and b is returned as `a/b`. */
function tableOf(specs: Record<string, Spec>, readings: Partial<PathReadings> = {}) {
  const table = new RouteTable<string>({ ...guarded, ...readings })
  const conflicts: string[] = []
  for (const [name, { match, priority = 0, protection = 'none', answersPreflights = false }] of Object.entries(specs)) {
    for (const pattern of pathPatterns(match.path)) {
      const other = table.add({ match, pattern, priority, answersPreflights, protection, value: name })
      if (other !== undefined) conflicts.push(`${other}/${name}`)
    }
  }
  const find = (target: string, host = 'h', headers: Record<string, string> = {}, method = 'GET') => {
    const path = readPath(target)
    if (path === null) return 'malformed'
    const found = table.find({ method, host, path, headers, url: target, address: '' })
    if (found === null) return null
    return `${found.value}${found.ambiguous ? '?' : ''}${found.preflight ? '!' : ''}`
  }
  return { table, conflicts, find }
}

t.test('readPath decodes paths as services do', async (t) => {
  const read = (target: string) => readPath(target)?.segments
  t.strictSame(read('/a/b'), ['a', 'b'])
  t.strictSame(read('//a///b/'), ['a', 'b'])
  t.strictSame(read('/'), [])
  t.strictSame(read('/?a/b'), [])
  t.strictSame(read('/a?b#c'), ['a'])
  t.strictSame(read('/%24a/%40b/%3A%2B%3D%26%2C'), ['$a', '@b', ':+=&,'])
  t.strictSame(read('/a%2Fb/c'), ['a\0b', 'c'])
  t.strictSame(read('/caf%C3%A9'), ['café'])
  t.strictSame(read('/caf%E9'), ['café'], 'bytes that are not UTF-8 are read as Latin-1')
  t.strictSame(read('/caf%C3%A9%E9'), ['caféé'])
  t.strictSame(read('/%25zz'), ['%zz'])
  t.strictSame(read('/a;x=1/b'), ['a', 'b'])
  t.strictSame(readPath('/a;x=1/b')?.others, [['a;x=1', 'b']])
  t.strictSame(readPath('/a%2F%2fb')?.others, [['a', 'b']])
  for (const target of ['*', 'a/b', '/%', '/%2', '/%zz', 'http://h/']) t.equal(readPath(target), null, target)
})

t.test('encoded reserved characters match decoded patterns', async (t) => {
  const { find } = tableOf({
    metadata: { match: { path: '/odata/$metadata' } },
    me: { match: { path: '/u/@me' } },
    user: { match: { path: '/u/:id' } },
    colon: { match: { path: { exact: '/a:b+c=d&e,f' } } },
    rest: { match: { path: '/' } }
  })
  t.equal(find('/odata/%24metadata'), 'metadata')
  t.equal(find('/u/%40me'), 'me')
  t.equal(find('/u/%40you'), 'user')
  t.equal(find('/a%3Ab%2Bc%3Dd%26e%2Cf'), 'colon')
})

t.test('a path that common servers read as the path of a route with other protection is ambiguous', async (t) => {
  const specs = {
    open: { match: { path: '/' } },
    users: { match: { path: '/api/users' }, protection: 'jwt' },
    admin: { match: { path: { exact: '/admin' } }, protection: 'jwt' },
    secret: { match: { path: '/p/:id/secret' }, protection: 'jwt' },
    files: { match: { path: '/files/*' }, protection: 'jwt' },
    upper: { match: { path: '/Reports' }, protection: 'jwt' },
    slashed: { match: { path: { exact: '/end/' } }, protection: 'jwt' },
    word: { match: { path: '/w/:id(^[a-z]+$)' }, protection: 'jwt' },
    partial: { match: { path: '/doc-*' }, protection: 'jwt' }
  }
  const { find } = tableOf(specs)
  for (const target of [
    '/API/users', '/api/Users/7', '/api/users.', '/api/users%20/7', '/api./users', '/api/users.%20.', '/admin/', '/ADMIN',
    '/admin.', '/p/1/secret/', '/p/1/Secret', '/files', '/Files/a', '/reports', '/end', '/w/ABC', '/%61pi/user%53',
    '/api/user%C5%BF', '/%EF%BD%81pi/users', '/api/users%09', '/DOC-1/2',
    '/ADM%C4%B0N'
  ]) t.equal(find(target), 'open?', target) // biome-ignore format: a list
  for (const [target, route] of [
    ['/api/users/7/', 'users'],
    ['/api/usersX', 'open'],
    ['/admin', 'admin'],
    ['/admin/x', 'open'],
    ['/p/1/secret', 'secret'],
    ['/files/', 'files'],
    ['/files/a', 'files'],
    ['/Reports', 'upper'],
    ['/end/', 'slashed'],
    ['/w/abc', 'word'],
    ['/w/a1', 'open'],
    ['/doc-1/2', 'partial'],
    ['/Other/', 'open'],
    ['/...', 'open']
  ] as const) {
    t.equal(find(target), route, target)
  }
  const alike = tableOf(Object.fromEntries(Object.entries(specs).map(([name, { match }]) => [name, { match }])))
  t.equal(alike.find('/API/users'), 'open', 'with equal protection, no spelling is ambiguous')
})

t.test('ignored readings match the same route, distinct readings are not ambiguous', async (t) => {
  const specs = {
    open: { match: { path: '/' } },
    users: { match: { path: '/api/Users' }, protection: 'jwt' },
    admin: { match: { path: { exact: '/admin' } }, protection: 'jwt' }
  }
  const ignoring = tableOf(specs, { case: 'ignore', trailingSlash: 'ignore', trailingDot: 'ignore' })
  for (const target of ['/api/users', '/API/USERS./x']) t.equal(ignoring.find(target), 'users', target)
  for (const target of ['/admin', '/admin/', '/Admin. ']) t.equal(ignoring.find(target), 'admin', target)
  const distinct = tableOf(specs, { case: 'distinct', trailingSlash: 'distinct', trailingDot: 'distinct' })
  for (const target of ['/api/users', '/API/Users', '/api/Users.', '/admin/', '/Admin']) {
    t.equal(distinct.find(target), 'open', target)
  }
  t.equal(tableOf(specs, { case: 'distinct' }).find('/admin/'), 'open?')
})

t.test('two spellings with separate routes are distinct', async (t) => {
  const { find, conflicts } = tableOf({
    lower: { match: { path: '/files' }, protection: 'jwt' },
    upper: { match: { path: '/Files' } }
  })
  t.strictSame(conflicts, [])
  t.equal(find('/files/1'), 'lower')
  t.equal(find('/Files/1'), 'upper')
  const alike = { lower: { match: { path: '/files' } }, upper: { match: { path: '/Files' } } }
  t.strictSame(tableOf(alike, { case: 'ignore' }).conflicts, ['lower/upper'])
})

t.test('path parameters are not matched, and a path is ambiguous if both readings differ in protection', async (t) => {
  const { find } = tableOf({
    api: { match: { path: '/api' } },
    admin: { match: { path: '/api/admin' }, protection: 'jwt' },
    odd: { match: { path: { exact: '/a;b' } }, protection: 'jwt' }
  })
  t.equal(find('/api;v=1/users'), 'api')
  t.equal(find('/api/admin;x=1/users'), 'admin?', 'the undecoded path belongs to another route')
  t.equal(find('/api/x;y/admin'), 'api')
  t.equal(find('/api/%2Fadmin'), 'api?', 'an encoded slash may be read as one')
  t.equal(find('/api/x%2Fadmin'), 'api')
})

t.test('hosts are matched before paths', async (t) => {
  const { table, find } = tableOf({
    none: { match: { path: '/api/orders' } },
    exact: { match: { path: '/', hosts: ['API.example.com.'] } },
    wild: { match: { path: '/api', hosts: ['*.example.com'] } },
    longer: { match: { path: '/', hosts: ['*.eu.example.com'] } },
    six: { match: { path: '/', hosts: ['[0:0:0::1]'] } },
    idn: { match: { path: '/', hosts: ['bücher.example'] } }
  })
  for (const [host, target, route] of [
    ['api.example.com', '/api/orders/1', 'exact'],
    ['Api.Example.com.:8443', '/api/orders/1', 'exact'],
    ['www.example.com', '/api/orders', 'wild'],
    ['www.example.com', '/other', null],
    ['a.eu.example.com', '/api/orders', 'longer'],
    ['eu.example.com', '/api', 'wild'],
    ['example.com', '/api/orders', 'none'],
    ['', '/api/orders', 'none'],
    ['[::1]:80', '/x', 'six'],
    ['[::0:1]', '/x', 'six'],
    ['xn--bcher-kva.example', '/', 'idn'],
    ['XN--BCHER-KVA.example:1', '/', 'idn'],
    [`${'a.'.repeat(200)}example.com`, '/api', null]
  ] as const) {
    t.equal(find(target, host), route, `${host} ${target}`)
  }
  t.ok(table.knows('anything'), 'a route without hosts takes any host')
  const { table: named } = tableOf({ a: { match: { path: '/', hosts: ['a', '*.b'] } } })
  for (const [host, known] of [['a', true], ['x.b:1', true], ['b', false], ['c', false]] as const) {
    t.equal(named.knows(host), known, host)
  } // biome-ignore format: a list
})

t.test('host names are normalised', async (t) => {
  t.equal(hostKey('A.b:80'), 'a.b')
  t.equal(hostKey('a.b.:80'), 'a.b')
  t.equal(hostKey('[2001:DB8:0::1]:80'), '[2001:db8::1]')
  t.equal(hostKey('[x'), '')
  t.equal(writtenHostKey('*.Straße.de'), 'xn--strae-oqa.de')
  t.equal(writtenHostKey('[::g]'), null)
  t.equal(writtenHostKey('a b'), null)
})

t.test('a search takes the same steps with ten thousand hosts as with one', async (t) => {
  const steps = (hosts: number) => {
    const table = new RouteTable<number>(guarded)
    for (let n = 0; n < hosts; n++) {
      const match = { path: '/', hosts: [`h${n}.example.com`, `*.w${n}.example.com`] }
      for (const pattern of pathPatterns(match.path)) {
        table.add({ match, pattern, priority: 0, answersPreflights: false, protection: null, value: n })
      }
    }
    let count = 0
    const { get } = Map.prototype
    Map.prototype.get = function (key) {
      count++
      return get.call(this, key)
    }
    try {
      const path = readPath('/a/b')!
      t.equal(table.find({ method: 'GET', host: 'x.y.w0.example.com', path, ...bare })?.value, 0)
      t.equal(table.find({ method: 'GET', host: 'h0.example.com', path, ...bare })?.value, 0)
      t.equal(table.find({ method: 'GET', host: 'unknown', path, ...bare }), null)
    } finally {
      Map.prototype.get = get
    }
    return count
  }
  t.equal(steps(10_000), steps(1))
})

t.test('methods and headers select a route, and preflights select it by the requested method', async (t) => {
  const { find, conflicts, table } = tableOf({
    read: { match: { path: '/x', methods: ['GET'] }, answersPreflights: true },
    write: { match: { path: '/x', methods: ['POST'] }, answersPreflights: true },
    beta: { match: { path: '/x', headers: { 'X-Beta': '1' } } },
    both: { match: { path: '/x', headers: { 'x-beta': '1', 'x-team': 'a' } } },
    only: { match: { path: '/only', methods: ['PUT'], headers: { 'x-beta': '1' } }, answersPreflights: true },
    again: { match: { path: '/x/', methods: ['GET', 'PATCH'] } }
  })
  t.strictSame(conflicts, ['read/again'])
  t.equal(find('/x', 'h', { 'x-beta': '1' }), 'beta')
  t.equal(find('/x', 'h', { 'x-beta': '1', 'x-team': 'a' }), 'both')
  t.equal(find('/x', 'h', {}, 'HEAD'), 'read')
  t.equal(find('/x', 'h', {}, 'DELETE'), null)
  const asks = (method: string) => ({ origin: 'https://a', 'access-control-request-method': method })
  t.equal(find('/x', 'h', asks('POST'), 'OPTIONS'), 'write!')
  t.equal(find('/x', 'h', asks('DELETE'), 'OPTIONS'), null)
  t.equal(
    find('/only', 'h', asks('PUT'), 'OPTIONS'),
    'only!',
    'a preflight does not have the headers of the actual request'
  )
  const path = readPath('/x')!
  t.strictSame(table.methodsFor({ method: 'DELETE', host: 'h', path, ...bare }), ['GET', 'HEAD', 'PATCH', 'POST'])
})

t.test('patterns with parameters, expressions and wildcards match', async (t) => {
  const { find } = tableOf({
    date: { match: { path: '/at/:hour(^\\d+)h:minute(^\\d+)m' } },
    file: { match: { path: '/f/:name.:ext' } },
    any: { match: { path: '/f/:any' } },
    optional: { match: { path: '/o/:id?' } },
    below: { match: { path: '/b/*' } },
    start: { match: { path: '/s/v*' } },
    literal: { match: { path: '/l::x/:id' } },
    slash: { match: { path: '/t/:id/' } }
  })
  for (const [target, route] of [
    ['/at/12h30m', 'date'],
    ['/at/12h', null],
    ['/f/a.b.c', 'file'],
    ['/f/a', 'any'],
    ['/f/', null],
    ['/f', null],
    ['/o/1', 'optional'],
    ['/o', 'optional'],
    ['/o/1/2', null],
    ['/b', null],
    ['/b/', 'below'],
    ['/b/1/2', 'below'],
    ['/s/v', 'start'],
    ['/s/v1/x', 'start'],
    ['/s/w', null],
    ['/l:x/1', 'literal'],
    ['/t/1/', 'slash'],
    ['/t/1', null]
  ] as const) {
    t.equal(find(target), route, target)
  }
  const values = (pattern: string, target: string) => {
    const [parsed] = pathPatterns(pattern)
    const found = paramValues(parsed!, readPath(target)!)
    return Object.fromEntries(paramNames(parsed!).map((name, at) => [name, found[at]]))
  }
  t.strictSame(values('/u/:id', '/u/a%20b'), { id: 'a b' })
  t.strictSame(values('/f/:name.:ext', '/f/a.b.c'), { name: 'a.b', ext: 'c' })
  t.strictSame(values('/at/:hour(^\\d+)h:minute(^\\d+)m', '/at/12h30m'), { hour: '12', minute: '30' })
  t.strictSame(values('/b/*', '/b/c/d/?x'), { '*': 'c/d/' })
  t.strictSame(values('/s/v*', '/s/v1/x'), { '*': '1/x' })
  t.strictSame(values('/api', '/api/x'), { '*': 'x' })
})

t.test('an expression is evaluated once for a request, however many searches it takes', async (t) => {
  const { table, find } = tableOf({
    one: { match: { path: '/a', headers: { 'x-a': { regex: '^b$' } }, methods: ['GET', 'POST', 'PUT', 'DELETE'] } },
    two: { match: { path: '/a/:id', headers: { 'x-a': { regex: '^b$' } } } }
  })
  let reads = 0
  const headers = {
    get 'x-a'() {
      reads++
      return 'c'
    }
  }
  const path = readPath('/a/1')!
  t.strictSame(table.methodsFor({ method: 'GET', host: 'h', path, headers, url: '/a/1', address: '' }), [])
  t.equal(reads, 1)
  t.equal(find('/a/1', 'h', { 'x-a': 'b' }), 'two', 'the next request has facts of its own')
  t.equal(find('/a/1', 'h', { 'x-a': 'c' }), null)
})
