/** Output of the access log: files, formats, further fields and filters, in gateways that serve requests. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync
} from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { pino } from 'pino'
import type { Test } from 'tap'
import t from 'tap'
import { build, gateway as gatewayPlugin } from '../../app.ts'
import { parseConfig } from '../../plugins/config.ts'
import { loggerOptions } from '../../plugins/operations/logging.ts'
import { Stores } from '../../plugins/stores.ts'
import { anyClient, listenFor } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { configOf, connect, get, startGateway, startService } from '../helpers/gateway.ts'

const read = (file: string) => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
const linesOf = (file: string) => read(file).split('\n').slice(0, -1)
const jsonOf = (file: string) => linesOf(file).map((line) => JSON.parse(line) as Record<string, unknown>)

async function started(t: Test, edge: object, more: { routes?: object[]; listen?: object } = {}) {
  const service = await startService((request, response) => {
    response.setHeader('x-cost', '7')
    response.setHeader('set-cookie', ['a=hunter2', 'b=hunter2'])
    response.statusCode = Number(request.url?.slice(1, 4)) || 200
    response.end('hello')
  })
  t.teardown(service.close)
  const routes = more.routes ?? [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const config = { edge, services: { any: { instances: [service.url] } }, ...more, routes }
  const gateway = await startGateway(config, { log: true })
  t.teardown(gateway.close)
  return { ...gateway, service }
}

for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const) {
  t.test(`files in all formats over ${protocol}`, async (t) => {
    const folder = t.testdir()
    const file = (name: string) => join(folder, name)
    const route = (name: string, accessLog: unknown) => ({
      name,
      match: { path: `/200/${name}` },
      service: 'any',
      edge: { accessLog }
    })
    const { port, log } = await started(
      t,
      { accessLog: { file: file('json') } },
      {
        listen: listenFor(t, protocol),
        routes: [
          route('common', { file: file('common'), format: 'common' }),
          route('combined', { file: file('combined'), format: 'combined' }),
          route('text', {
            file: file('text'),
            format: '{method} {path} {query.page} {status} {bytesSent} {response.headers.x-cost} {service}'
          }),
          route('members', {
            file: file('members'),
            format: { status: '{status}', via: '{route} at {ip}', tenant: '{headers.x-tenant|none}' }
          }),
          route('more', {
            file: file('more'),
            requestHeaders: ['X-Tenant', 'authorization', 'x-none'],
            responseHeaders: ['x-cost', 'Set-Cookie'],
            omit: ['ip', 'agent', 'requestId']
          }),
          route('log', true),
          route('off', false),
          { name: 'rest', match: { path: '/' }, service: 'any' }
        ]
      }
    )
    const { ask } = anyClient(t, protocol, port)
    const headers = {
      'user-agent': 'me "x"',
      referer: 'https://a.example/b?token=hunter2',
      authorization: 'Bearer hunter2',
      'x-tenant': 'a'
    }
    for (const name of ['common', 'combined', 'text', 'members', 'more', 'log', 'off', 'rest']) {
      t.equal((await ask(`/200/${name}?page=2&token=hunter2`, { headers })).body.toString(), 'hello', name)
    }
    await ask('/nowhere', { method: 'POST', headers: { host: 'x' } })
    await eventually(() =>
      ['common', 'combined', 'text', 'members', 'more'].every((name) => linesOf(file(name)).length === 1)
    )
    await eventually(() => linesOf(file('json')).length === 2)
    const version = protocol === 'HTTP/2' ? '2.0' : '1.1'
    const start = `^127\\.0\\.0\\.1 - - \\[\\d\\d/\\w{3}/\\d{4}:\\d\\d:\\d\\d:\\d\\d \\+0000\\] "GET /200/NAME HTTP/${version}" 200 5`
    t.match(linesOf(file('common'))[0], new RegExp(`${start.replace('NAME', 'common')}$`))
    t.match(
      linesOf(file('combined'))[0],
      new RegExp(`${start.replace('NAME', 'combined')} "https://a.example/b" "me \\\\x22x\\\\x22"$`)
    )
    t.equal(linesOf(file('text'))[0], 'GET /200/text 2 200 5 7 any')
    t.equal(linesOf(file('members'))[0], '{"status":200,"via":"members at 127.0.0.1","tenant":"a"}')
    const [more] = jsonOf(file('more'))
    t.match(more, {
      level: 'info', name: 'jingwei', method: 'GET', path: '/200/more', route: 'more', status: 200, msg: 'request',
      requestHeaders: { 'x-tenant': 'a', authorization: '***' }, responseHeaders: { 'x-cost': '7', 'set-cookie': '***' }
    }) // biome-ignore format: as in the line
    t.notOk('ip' in more! || 'agent' in more! || 'requestId' in more! || 'x-none' in (more!.requestHeaders as object))
    t.match(jsonOf(file('json')), [
      { route: 'rest', agent: 'me "x"' },
      { route: 'rest', method: 'POST' }
    ])
    const inLog = log.filter(({ msg }) => msg === 'request')
    t.match(inLog, [{ route: 'log', status: 200 }])
    t.equal(inLog.length, 1)
    for (const name of ['common', 'combined', 'text', 'members', 'more', 'json'])
      t.notMatch(read(file(name)), /hunter2/, name)
    t.equal(statSync(file('json')).mode & 0o777 & ~process.umask(), 0o640 & ~process.umask())
  })
}

t.test('filters select lines, and refusals outside of routes follow the top level', async (t) => {
  const folder = t.testdir()
  const [all, slow] = [join(folder, 'all'), join(folder, 'slow')]
  const { port } = await started(
    t,
    { accessLog: { file: all, format: '{route|none} {status} {error|ok}', filters: { statusCodes: ['4xx', '5xx'] } } },
    {
      routes: [
        {
          name: 'slow',
          match: { path: '/200/slow' },
          service: 'any',
          edge: { accessLog: { file: slow, filters: { minDuration: '1ms' } } }
        },
        { name: 'all', match: { path: '/' }, service: 'any', edge: {} }
      ]
    }
  )
  for (const path of ['/200', '/404', '/503', '/301', '/200/slow']) await get(port, path)
  await connect(port, 'NONSENSE\r\n\r\n').closed
  await get(port, '/a/../b')
  await eventually(() => linesOf(all).length === 4)
  t.strictSame(linesOf(all), ['all 404 ok', 'all 503 ok', 'none 400 HPE_INVALID_METHOD', 'all 400 JW_AMBIGUOUS_PATH'])
})

t.test('with a filter for slow requests, fast ones have no line', async (t) => {
  const file = join(t.testdir(), 'log')
  const { port } = await started(t, { accessLog: { file, filters: { minDuration: '10s', sample: '0%' } } })
  await get(port, '/200')
  await sleep(300)
  t.equal(read(file), '')
})

t.test('a file that is renamed, removed or truncated is followed', async (t) => {
  const folder = t.testdir({ logs: {} })
  const file = join(folder, 'logs/access.log')
  const { port, log } = await started(t, { accessLog: { file, format: '{path}' } })
  const expect = async (path: string, name = file) => {
    await get(port, path)
    await eventually(() => read(name).endsWith(`${path}\n`), `${path} in ${name}`)
  }
  await expect('/200/a')
  renameSync(file, `${file}.1`)
  await eventually(() => read(file) === '' && statSync(file, { throwIfNoEntry: false }) !== undefined, 'a new file')
  await expect('/200/b')
  t.equal(read(`${file}.1`), '/200/a\n')
  rmSync(file)
  await eventually(() => statSync(file, { throwIfNoEntry: false }) !== undefined, 'a new file')
  await expect('/200/c')
  t.equal(read(file), '/200/c\n')
  truncateSync(file)
  await expect('/200/d')
  t.equal(read(file), '/200/d\n', 'without a hole')
  renameSync(join(folder, 'logs'), join(folder, 'moved'))
  await eventually(() => log.some(({ msg }) => /cannot be opened again \(ENOENT\)/.test(String(msg))))
  await expect('/200/e', join(folder, 'moved/access.log'))
  mkdirSync(join(folder, 'logs'))
  await eventually(() => statSync(file, { throwIfNoEntry: false }) !== undefined, 'a new file')
  await expect('/200/f')
  t.equal(log.filter(({ msg }) => /cannot be opened again/.test(String(msg))).length, 1, 'one message')
})

t.test('a file that cannot take lines stops no request; dropped lines are counted and reported', async (t) => {
  const file = join(t.testdir(), 'full')
  symlinkSync('/dev/full', file)
  const service = await startService((_request, response) => response.end('hello'))
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      admin: { port: 0 },
      edge: { accessLog: { file } },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  for (let i = 0; i < 5; i++) t.equal((await get(gateway.port, '/')).body, 'hello')
  const dropped = async () =>
    /access_log_dropped_total\{file=".*full"\} (\d+)/.exec(await gateway.server.metrics.metrics())?.[1]
  await eventually(async () => (await dropped()) === '5')
  const reports = gateway.log.filter(({ msg }) => /lines were dropped \(ENOSPC\)/.test(String(msg)))
  t.equal(reports.length, 1)
  t.match(reports[0], { file, reason: 'ENOSPC' })
})

t.test('a pipe that is not read keeps at most the buffer', async (t) => {
  const file = join(t.testdir(), 'fifo')
  spawnSync('mkfifo', [file])
  const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => closeSync(reader))
  const { port, server } = await started(t, { accessLog: { file, buffer: '64kb', format: '{path}' } })
  const path = `/200/${'x'.repeat(4000)}`
  for (let i = 0; i < 80; i++) t.equal((await get(port, path)).status, 200)
  const dropped = async () => Number(/access_log_dropped_total\{.*\} (\d+)/.exec(await server.metrics.metrics())?.[1])
  await eventually(async () => (await dropped()) > 0)
  t.ok((await dropped()) < 80 - 16, 'the pipe and the buffer have 64 KB each')
})

t.test('a file that cannot be written is a fault with a position', async (t) => {
  const folder = t.testdir({ file: '' })
  const faultOf = (accessLog: string) => {
    try {
      parseConfig(`edge:\n  accessLog: ${accessLog}\nservices: {}\nroutes: []\n`, join(folder, 'gateway.yaml'), {})
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.match(
    faultOf('{ file: none/access.log }'),
    /gateway\.yaml:2:\d+: edge\.accessLog\.file: the folder .*\/none does not exist/
  )
  t.match(faultOf('{ file: . }'), /is a folder/)
  t.match(faultOf('{ file: file/access.log }'), /is not a folder|ENOTDIR/)
  t.match(faultOf('{ file: a, buffer: 1kb }'), /buffer: must hold the longest lines/)
  t.match(faultOf('{ format: comon }'), /did you mean "common"/)
  t.match(faultOf('{ format: always }'), /the same text for each request/)
  t.match(faultOf('{ format: "{stauts}" }'), /format: unknown reference "\{stauts\}"; did you mean "status"\?/)
  t.match(
    faultOf('{ format: { a: "{durationMS}", b: "{zzzzzzzz}" } }'),
    /"\{durationMS\}"; did you mean "durationMs"\?/
  )
  t.match(faultOf('{ format: { a: "{zzzzzzzz}" } }'), /possible are \{requestId\}, \{method\}, \{path\}, \{headers/)
  t.match(
    faultOf('{ requestHeaders: [x-a], unmasked: [cookie] }'),
    /unmasked\[0\]: the log never shows the value of "cookie"/
  )
  t.match(
    faultOf('{ requestHeaders: [x-a], unmasked: [x-a] }'),
    /unmasked\[0\]: no effect: the log shows the value of "x-a"/
  )
  t.match(faultOf('{ format: { a: "{status", b: "x" } }'), /format\.a: "\{" has no counterpart/)
  t.match(faultOf('{ format: "{status}\\n{path}" }'), /no line breaks/)
  t.match(faultOf('{ format: common, omit: [ip] }'), /omit: has an effect with "format: json" only/)
  t.match(faultOf('{ omit: [iq] }'), /omit\[0\]/)
  t.match(faultOf('{ filters: {} }'), /filters/)
  t.match(faultOf('{ filters: { statusCodes: [6xx] } }'), /a status such as 404/)
  t.match(faultOf('{ filters: { sample: 0% } }'), /selects no request/)
  t.match(faultOf('{ requestHeaders: [a, A] }'), /in the list already/)
  t.match(faultOf('{ filePath: a }'), /write file: PATH/)
  t.equal(faultOf('{ file: access.log }'), '')
  const config = parseConfig(
    'edge: { accessLog: { file: access.log } }\nservices: {}\nroutes: []\n',
    join(folder, 'gateway.yaml'),
    {}
  )
  const dry = build(config, { logger: false, dryRun: true })
  await dry.ready()
  await dry.close()
  t.equal(statSync(join(folder, 'access.log'), { throwIfNoEntry: false }), undefined, 'a check creates no file')
})

t.test('headers and references that may be secrets have a warning', async (t) => {
  const warnings: string[] = []
  const accessLog = {
    format: { a: '{query.sig} {cookies.sid}', b: '{headers.x-api-key|none} {query.page} {status}', c: '{query.sig}' }
  }
  const match = { path: '/a/:password' }
  const format = '{params.password} {params.password} {response.headers.set-cookie} {response.status} {target}'
  const routes = [{ name: 'a', match, response: { status: 204 }, edge: { accessLog: { format } } }]
  parseConfig(
    JSON.stringify({ edge: { accessLog }, services: {}, routes }),
    '/gateway.yaml',
    {},
    ({ path, message, line }) => {
      t.equal(line, 1)
      warnings.push(`${path}: ${message}`)
    }
  )
  const shown = 'the log shows only that it is there: it may be a secret'
  t.strictSame(warnings.sort(), [
    `edge.accessLog.format.a: of "{cookies.sid}" ${shown}`,
    `edge.accessLog.format.a: of "{query.sig}" ${shown}`,
    `edge.accessLog.format.b: of "{headers.x-api-key|none}" ${shown}; if it is none, name it under "unmasked"`,
    `edge.accessLog.format.c: of "{query.sig}" ${shown}`,
    `routes[0].edge.accessLog.format: of "{params.password}" ${shown}`,
    `routes[0].edge.accessLog.format: of "{response.headers.set-cookie}" ${shown}`
  ])
})

t.test('headers whose names suggest a secret are masked, unless they are named as harmless', async (t) => {
  const secrets = [
    'x-password', 'X-Auth-Token', 'x-session', 'x-csrf-token', 'x-amz-security-token', 'x-amz-credential', 'x-api-key', 'apikey',
    'x-goog-iap-jwt-assertion', 'x-user-pwd', 'x-auth', 'x-pin', 'proxy-authorization'
  ] // biome-ignore format: a list
  const harmless = ['x-tenant', 'x-author', 'x-auth-user', 'x-mapping', 'x-passenger', 'idempotency-key', 'x-signal']
  const names = [...secrets, ...harmless, 'x-session-kind', 'cookie']
  const folder = t.testdir({})
  const [list, text] = [join(folder, 'list.log'), join(folder, 'text.log')]
  const format = names.map((name) => `{headers.${name}}`).join(' ')
  const unmasked = ['X-Session-Kind']
  const { port } = await started(
    t,
    { accessLog: { file: list, requestHeaders: names, responseHeaders: ['x-session-kind', 'x-token'], unmasked } },
    {
      routes: [
        {
          name: 'text',
          match: { path: '/text' },
          response: { status: 204 },
          edge: { accessLog: { file: text, format: `${format} {response.headers.x-session-kind}`, unmasked } }
        },
        {
          name: 'list',
          match: { path: '/list' },
          response: { status: 204, headers: { 'x-session-kind': 'w', 'x-token': 'w' } }
        }
      ]
    }
  )
  const fields = names.map((name) => `${name}: hunter2`)
  for (const path of ['/text', '/list']) t.equal((await get(port, path, fields)).status, 204)
  const values = names.map((name) => (secrets.includes(name) || name === 'cookie' ? '***' : 'hunter2'))
  await eventually(() => linesOf(text).length === 1 && linesOf(list).length === 1)
  t.equal(linesOf(text)[0], [...values, '-'].join(' '))
  const line = jsonOf(list)[0]!
  t.strictSame(line.requestHeaders, Object.fromEntries(names.map((name, index) => [name.toLowerCase(), values[index]])))
  t.strictSame(line.responseHeaders, { 'x-session-kind': 'w', 'x-token': '***' })
})

t.test('a parameter that no path of the route has is a fault', async (t) => {
  const route = (format: string) =>
    `{ name: a, match: { path: "/a/:id" }, response: { status: 204 }, edge: { accessLog: { format: ${format} } } }`
  const parse = (format: string) => parseConfig(`services: {}\nroutes: [${route(format)}]\n`, '/gateway.yaml', {})
  t.throws(
    () => parse('"{params.ib} {status}"'),
    /routes\[0\]\.edge\.accessLog\.format: match\.path has no parameter for "\{params\.ib\}"/
  )
  t.throws(
    () => parse('{ x: "{status}", id: "{params.ib|none}" }'),
    /accessLog\.format\.id: match\.path has no parameter/
  )
  parse('"{params.id} {status}"')
})

t.test('a file outlives the configuration, and is closed with the last one', async (t) => {
  const file = join(t.testdir(), 'log')
  const stores = new Stores()
  const make = async () => {
    const server = build(configOf({ edge: { accessLog: { file, format: '{path}' } }, services: {}, routes: [] }), {
      logger: false,
      stores
    })
    await server.listen({ host: '127.0.0.1', port: 0 })
    return { server, port: (server.server.address() as { port: number }).port }
  }
  const first = await make()
  await get(first.port, '/first')
  const second = await make()
  await first.server.close()
  await get(second.port, '/second')
  await second.server.close()
  t.strictSame(linesOf(file), ['/first', '/second'], 'all lines are written when the last one has closed')
})

t.test('the log of the gateway gets raw lines, other loggers get fields', async (t) => {
  const texts: string[] = []
  const stream = { write: (line: string) => texts.push(line), batch: (line: string) => texts.push(line) }
  const objects: Record<string, unknown>[] = []
  const foreign = pino({ level: 'info' }, new Writable({
    write(chunk: Buffer, _encoding, done) {
      objects.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
      done()
    }
  })) // biome-ignore format: short
  for (const format of ['json', '{method} {path}', { status: '{status}' }]) {
    const config = configOf({ edge: { accessLog: { format } }, services: {}, routes: [] })
    for (const logger of [{ logger: { ...loggerOptions({}), stream } }, { loggerInstance: foreign }]) {
      const server = Fastify({ ...logger, disableRequestLogging: true } as object)
      server.register(gatewayPlugin, config)
      await server.listen({ host: '127.0.0.1', port: 0 })
      await get((server.server.address() as { port: number }).port, '/nowhere', ['X-Request-Id: r1'])
      await server.close()
    }
  }
  const [json, text, members] = texts.filter((line) => !line.includes('listening'))
  t.match(
    json,
    /^\{"level":"info","time":"[^"]+","name":"jingwei","requestId":"r1","method":"GET","path":"\/nowhere","route":null,"status":404,.*,"msg":"request"\}\n$/
  )
  t.equal(text, 'GET /nowhere\n')
  t.equal(members, '{"status":404}\n')
  const found = objects.filter(({ msg }) => !String(msg).includes('listening'))
  t.match(found, [
    { msg: 'request', path: '/nowhere', requestId: 'r1' },
    { msg: 'GET /nowhere' },
    { msg: 'request', status: 404 }
  ])
})

t.test('a level above info suppresses lines on stdout, but not those of files', async (t) => {
  const file = join(t.testdir(), 'log')
  const texts: string[] = []
  const stream = { write: (line: string) => texts.push(line), batch: (line: string) => texts.push(line) }
  for (const accessLog of [true, { file, format: '{path}' }]) {
    const server = Fastify({ logger: { ...loggerOptions({ JINGWEI_LOG_LEVEL: 'warn' }), stream } })
    server.register(gatewayPlugin, configOf({ edge: { accessLog }, services: {}, routes: [] }))
    await server.listen({ host: '127.0.0.1', port: 0 })
    const { port } = server.server.address() as { port: number }
    await get(port, '/nowhere')
    await server.close()
  }
  t.strictSame(texts, [])
  t.strictSame(linesOf(file), ['/nowhere'])
})
