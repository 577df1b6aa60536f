// slow: takes about 48 s
/** The commands, as a person types them. */
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from './helpers/processes.ts'

// Each command is a process of its own.
t.setTimeout(300_000)

const home = join(import.meta.dirname, '..')
const { JINGWEI_CONFIG: _unset, npm_execpath: _npm, ...env } = process.env
const jingwei = (args: string[], more: NodeJS.ProcessEnv = {}) =>
  runToEnd(process.execPath, [join(home, 'app.ts'), ...args], { env: { ...env, ...more } })

const good = `
discovery: { consul: { url: "http://127.0.0.1:1" } }
services: { orders: {}, next: {} }
routes:
  - { name: plain, match: { path: /plain, methods: [GET], hosts: [a.example] }, service: orders, mesh: { retry: false } }
  - name: full
    match: { path: { exact: /full }, headers: { x-beta: "1" } }
    split: [{ service: orders, weight: 9 }, { service: next, weight: 1 }]
    edge: { cors: { origin: "*" }, jwt: { secret: "a secret that is long enough, for tests", audience: api }, accessLog: false }
`
const bad = 'listen: { port: 80a }\nroutes: [{ name: a, match: { path: / }, service: none }]\n'
const dir = t.testdir({ 'good.yaml': good, 'bad.yaml': bad })
const file = join(dir, 'good.yaml')

t.test('--help and --version print help and version', async (t) => {
  const help = await jingwei(['--help'])
  t.equal(help.code, 0)
  for (const word of ['check', 'routes', 'schema', 'token', '--config', 'JINGWEI_CONFIG', '--version']) {
    t.ok(help.stdout.includes(word), word)
  }
  const byNpm = await jingwei(['--help'], { npm_execpath: '/usr/bin/npm' })
  t.equal(byNpm.code, 0)
  t.notMatch(byNpm.stdout, 'node app.ts', 'the text has no command that an older Node cannot run')
  t.match(byNpm.stdout, '  npm -s start -- check [FILE]        report every fault')
  const columns = (text: string) => [...text.matchAll(/^ {2}(?:n.*?)? {2,}(?=\S)/gm)].map(([start]) => start.length)
  t.strictSame(new Set(columns(byNpm.stdout)), new Set([38]), 'the descriptions are aligned')
  t.match(await jingwei(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ })
})

t.test('check takes the file by argument, option, environment or default', async (t) => {
  const ok = `${file}: ok, 2 routes, 2 services\n`
  t.match(await jingwei(['check', file]), { code: 0, stdout: ok })
  t.match(await jingwei(['check', '--config', file]), { code: 0, stdout: ok })
  t.match(await jingwei(['check'], { JINGWEI_CONFIG: file }), { code: 0, stdout: ok })
  t.match(await jingwei(['check']), {
    code: 0,
    stdout: `${join(home, 'config/gateway.yaml')}: ok, 3 routes, 3 services\n`
  })
  const precedence = await jingwei(['check', '-c', file], { JINGWEI_CONFIG: join(dir, 'bad.yaml') })
  t.match(precedence, { code: 0, stdout: ok }, 'the option has precedence over the variable')
})

t.test('check reports settings without effect as warnings, not as faults', async (t) => {
  const path = join(t.testdir({ 'vain.yaml': 'mesh: { timeout: 3s, attemptTimeout: 3s }\n' }), 'vain.yaml')
  const { code, stdout, stderr } = await jingwei(['check', path])
  t.strictSame([code, stdout], [0, `${path}: ok, 0 routes, 0 services\n`])
  t.match(stderr, `warning: ${path}:1:38: mesh.attemptTimeout: 3s has no effect`)
})

t.test('commands start nothing with an invalid configuration', async (t) => {
  const path = join(dir, 'bad.yaml')
  for (const args of [
    ['check', path],
    ['routes', path],
    ['start', '-c', path],
    ['start', path],
    ['-c', path]
  ]) {
    const { code, stdout, stderr } = await jingwei(args)
    t.equal(code, 1)
    t.equal(stdout, '')
    t.equal(
      stderr,
      `${path}:1:17: listen.port: expected an integer from 0 to 65535, found "80a"\n` +
        `${path}:2:50: routes[0].service: unknown service "none"\n2 faults in ${path}; nothing was started\n`
    )
  }
  const gone = join(dir, 'nope.yaml')
  const stderr = `${gone}: no such file\n1 fault in ${gone}; nothing was started\n`
  t.match(await jingwei(['check', gone]), { code: 1, stderr })
  t.match(await jingwei(['check', '-c', gone]), { code: 1, stderr })
  for (const args of [['check'], ['token', 'full']]) {
    t.strictSame(await jingwei(args, { JINGWEI_CONFIG: gone }), {
      code: 1,
      stdout: '',
      stderr: `jingwei: JINGWEI_CONFIG names a file that does not exist: ${gone}\n`
    })
  }
  t.match(await jingwei(['check', file], { JINGWEI_CONFIG: gone }), { code: 0, stderr: '' }, 'an argument wins')
})

t.test('routes shows the steps of each route, without a query to Consul', async (t) => {
  const { code, stdout } = await jingwei(['routes', file])
  t.equal(code, 0)
  const [header, full, plain] = stdout.split('\n').map((line) => line.split(/ {2,}/))
  t.strictSame(header, ['ROUTE', 'MATCH', 'EDGE', 'SERVICE', 'MESH', 'RESPONSE'])
  const rows = [full!, plain!].sort(([a], [b]) => (a! < b! ? -1 : 1))
  t.strictSame(rows[0]!.slice(0, 2), ['full', 'any =/full x-beta:***'])
  t.match(rows[0]![2], /cors → jwt/)
  t.notMatch(rows[0]![2], /access-log|rate-limit/)
  t.equal(rows[0]![3], 'orders=9 next=1')
  t.match(rows[0]![4], /telemetry → deadline → call → replay → retry → select/)
  t.equal(rows[0]![5], 'raw')
  t.strictSame(rows[1]!.slice(0, 2), ['plain', 'GET a.example /plain'])
  t.notMatch(rows[1]![4], /retry/)
})

t.test('schema prints a JSON Schema', async (t) => {
  const { code, stdout } = await jingwei(['schema'])
  t.equal(code, 0)
  t.match(JSON.parse(stdout), { $schema: /json-schema/, properties: { routes: { type: 'array' } } })
})

t.test('token prints a token that the configuration accepts', async (t) => {
  const claims = '{"scope":"read"}'
  const { code, stdout } = await jingwei([
    'token',
    'full',
    '-c',
    file,
    '--subject',
    'bob',
    '--ttl',
    '5m',
    '--claims',
    claims
  ])
  t.equal(code, 0)
  const payload = JSON.parse(Buffer.from(stdout.split('.')[1]!, 'base64url').toString()) as Record<string, number>
  t.match(payload, { sub: 'bob', aud: 'api', scope: 'read' })
  t.equal(payload.exp! - payload.iat!, 300)
  t.match(await jingwei(['token', '-c', file]), { code: 1, stderr: /those that have: full/ })
  t.match(await jingwei(['token', '-c', file]), { stderr: /^jingwei: token takes a route whose jwt has a secret; / })
  t.match(await jingwei(['token', 'plain', '-c', file]), { code: 1, stderr: /route "plain" has no jwt secret/ })
  t.match(await jingwei(['token', 'fully', '-c', file]), {
    code: 1,
    stderr: 'jingwei: no route is named "fully"; did you mean "full"?\n'
  })
  const without = t.testdir({
    'none.yaml': good.replace(/jwt: \{.*?\}/, 'jwt: false'),
    'keys.yaml': good.replace(/secret: ".*?"/, 'jwks: "https://id.example.com/keys"')
  })
  t.match(await jingwei(['token', 'full', '-c', join(without, 'none.yaml')]), {
    code: 1,
    stderr: 'jingwei: no route has edge.jwt: requests need no token, until you set it\n'
  })
  t.match(await jingwei(['token', 'full', '-c', join(without, 'keys.yaml')]), {
    code: 1,
    stderr:
      'jingwei: no route has edge.jwt with a "secret": for "jwks" and "publicKey", get the token from its issuer\n'
  })
  t.match(await jingwei(['token', 'full', '-c', file, '--ttl', 'soon']), { code: 1, stderr: /expected a duration/ })
  t.match(await jingwei(['token', 'full', '-c', file, '--claims', '{']), {
    code: 1,
    stderr: /^jingwei: --claims {: expected a JSON object/
  })
})

t.test('unknown commands and options are reported with the nearest known one', async (t) => {
  const cases: [args: string[], stderr: string][] = [
    [['chek'], 'unknown command "chek"; did you mean "check"?'],
    [['tokn', 'full'], 'unknown command "tokn"; did you mean "token"?'],
    [['gateway.yaml'], 'unknown command "gateway.yaml"; did you mean "start gateway.yaml"?'],
    [['check', '--confg', 'x'], 'unknown option "--confg"; did you mean "--config"?'],
    [['check', '--confg=x'], 'unknown option "--confg"; did you mean "--config"?'],
    [['--confg', file], 'unknown option "--confg"; did you mean "--config"?'],
    [['check', '-config', file], 'unknown option "-config"; did you mean "--config"?'],
    [['-help'], 'unknown option "-help"; did you mean "--help"?'],
    [['token', 'full', '--subjct', 'bob'], 'unknown option "--subjct"; did you mean "--subject"?'],
    [['explain', file, 'GET', '/', '--ipp', '1'], 'unknown option "--ipp"; did you mean "--ip"?'],
    [['check', file, '--ip', '::1'], 'check takes no option "--ip"; it is for explain'],
    [['-H', 'x-a: b'], 'start takes no option "-H"; it is for explain'],
    [['explain', file, 'GET', '/', '--ttl', '1h'], 'explain takes no option "--ttl"; it is for token'],
    [['check', file, join(dir, 'bad.yaml')], `check: unexpected argument "${join(dir, 'bad.yaml')}"`],
    [['start', file, file], `start: unexpected argument "${file}"`],
    [['schema', file, file], `schema: unexpected argument "${file}"`],
    [['check', file, '-c', 'x'], `check: two configurations, "${file}" and --config "x"; name one of them`],
    [['start', file, '-c', 'x'], `start: two configurations, "${file}" and --config "x"; name one of them`],
    [
      ['explain', file, 'GET', '/', '-c', 'x'],
      `explain: two configurations, "${file}" and --config "x"; name one of them`
    ],
    [['init', '-c', 'x'], 'init takes no option "--config": it writes a configuration'],
    [['token', 'full', 'plain'], 'token: unexpected argument "plain"']
  ]
  for (const [args, stderr] of cases) {
    t.strictSame(await jingwei(args), { code: 1, stdout: '', stderr: `jingwei: ${stderr}\n` }, args.join(' '))
  }
})

t.test('the help text follows if no known one is near, or if an option has no value', async (t) => {
  const cases: [args: string[], stderr: RegExp][] = [
    [['serve-all'], /^jingwei: unknown command "serve-all"\n\njingwei: an API gateway[\s\S]*check \[FILE\]/],
    [
      ['check', '--verbose', '1'],
      /^jingwei: unknown option "--verbose"\n\njingwei: an API gateway[\s\S]*--config FILE/
    ],
    [['check', '-x'], /^jingwei: unknown option "-x"\n\njingwei: /],
    [['check', '--config'], /^jingwei: Option '-c, --config <value>' argument missing\n\njingwei: /]
  ]
  for (const [args, stderr] of cases) t.match(await jingwei(args), { code: 1, stdout: '', stderr }, args.join(' '))
  t.match(await jingwei(['serve-all', '--help']), { code: 0, stderr: '' })
})

t.test('explain reports invalid arguments', async (t) => {
  const cases: [args: string[], message: RegExp][] = [
    [['-c', file, 'GET', '/plain'], /^jingwei: explain takes a file, a method and a path, such as: /],
    [[file, 'FETCH', '/plain'], /^jingwei: explain: "FETCH" is not an HTTP method; such as: /],
    [[file, 'GET', 'plain'], /^jingwei: explain: a path starts with "\/", found "plain"; /],
    [[file, 'GET', '/plain', '--ip', 'home'], /^jingwei: --ip home: expected an IP address\n$/],
    [[file, 'GET', '/plain', '/full'], /^jingwei: explain: unexpected argument "\/full"\n$/]
  ]
  for (const [args, message] of cases)
    t.match(await jingwei(['explain', ...args]), { code: 1, stdout: '', stderr: message })
})

t.test('an invalid log level is reported', async (t) => {
  t.match(await jingwei(['-c', file], { JINGWEI_LOG_LEVEL: 'loud' }), {
    code: 1,
    stderr: 'jingwei: JINGWEI_LOG_LEVEL: expected one of trace, debug, info, warn, error, fatal, silent, found "loud"\n'
  })
})
