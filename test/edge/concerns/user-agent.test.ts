/** `edge.userAgent`: which user agents are refused, over each protocol. */
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import userAgent from '../../../plugins/edge/concerns/user-agent.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startEcho, startGateway } from '../../helpers/gateway.ts'

async function start(t: Test, options: object, more: object = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      edge: { userAgent: options },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    {
      log: true,
      before: (server) =>
        void server.register(async (own) => {
          own.get('/own', { config: { edge: { userAgent: true } } }, () => 'own')
        })
    }
  )
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, lines }
}

const firefox = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
const google = 'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)'

for (const protocol of protocols) {
  t.test(`over ${protocol}, user agents are refused by the lists`, async (t) => {
    const deny = ['*bot*', 'curl/*', '/^.*(sqlmap|nikto)/[0-9.]+.*$/']
    const gateway = await start(t, { deny, except: ['*googlebot/*'] }, { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    let count = 0
    for (const [agent, reason] of [
      [firefox, null],
      [google, null],
      ['', null],
      [undefined, null],
      ['EvilBot/1.0', 'user_agent_denied'],
      ['curl/8.5.0', 'user_agent_denied'],
      ['CURL/8.5.0', 'user_agent_denied'],
      ['libcurl/8.5.0', null],
      ['sqlmap/1.7 (http://sqlmap.org)', 'user_agent_denied'],
      ['x'.repeat(1001), 'user_agent_long']
    ] as const) {
      for (const path of ['/', '/own']) {
        for (let again = 0; again < 2; again++) {
          const { status, body } = await ask(path, { headers: agent === undefined ? {} : { 'user-agent': agent } })
          t.equal(status, reason === null ? 200 : 403, agent ?? 'none')
          if (reason !== null) t.match(JSON.parse(body.toString()), { code: 'JW_USER_AGENT_DENIED' })
          count++
          await eventually(() => gateway.lines().length >= count)
          t.equal(gateway.lines()[count - 1]!.reason, reason ?? undefined)
        }
      }
    }
  })

  t.test(`over ${protocol}, only the listed user agents are allowed`, async (t) => {
    const gateway = await start(t, { allow: ['MyApp/*', '/^Partner [A-C]$/'] }, { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    const status = async (headers: Record<string, string>) => (await ask('/', { headers })).status
    t.equal(await status({ 'user-agent': 'myapp/2' }), 200)
    t.equal(await status({ 'user-agent': 'Partner B' }), 200)
    for (const headers of [{}, { 'user-agent': '' }, { 'user-agent': 'Partner D' }, { 'user-agent': firefox }]) {
      t.equal(await status(headers as Record<string, string>), 403, JSON.stringify(headers))
    }
  })
}

t.test('all of several fields must pass', async (t) => {
  const gateway = await start(t, { allow: ['MyApp/*'] })
  const status = async (...headers: string[]) => (await get(gateway.port, '/', headers)).status
  t.equal(await status('User-Agent: MyApp/1', 'User-Agent: MyApp/2'), 200)
  t.equal(await status('User-Agent: MyApp/1', 'User-Agent: other'), 403)
  t.equal(await status('User-Agent: MyApp/1', 'User_Agent: other'), 403)
})

t.test('an absent user agent, by option; WebSockets and preflights; shadow mode', async (t) => {
  const gateway = await start(t, { empty: 'refuse' })
  t.equal((await get(gateway.port, '/')).status, 403)
  t.equal((await get(gateway.port, '/', ['User-Agent:  '])).status, 403)
  t.equal((await get(gateway.port, '/', ['User-Agent: a'])).status, 200)
  const client = connect(gateway.port, handshake('/'))
  t.teardown(() => client.socket.destroy())
  await client.until('HTTP/1.1 403 ')
  t.equal(
    (await get(gateway.port, '/', ['Origin: http://a', 'Access-Control-Request-Method: GET'], 'OPTIONS')).status,
    403
  )
  await eventually(() => gateway.lines().length === 5)
  t.match(gateway.lines()[0], { reason: 'user_agent_missing' })
  const shadow = await start(t, { allow: ['a/*'], empty: 'pass', mode: 'shadow' })
  t.equal((await get(shadow.port, '/', ['User-Agent: b'])).status, 200)
  t.equal((await get(shadow.port, '/')).status, 200)
  const text = await shadow.server.metrics.metrics()
  t.match(text, /jingwei_edge_shadow_refusals_total\{concern="user-agent",route="all"\} 1\n/)
})

t.test('wildcards', async (t) => {
  const example = {
    method: 'GET',
    target: '/',
    ip: '127.0.0.1',
    consumer: null,
    user: null,
    paths: undefined as never,
    date: 0
  }
  const isDenied = (pattern: string, agent: string) =>
    userAgent.explain?.({ edge: { userAgent: { deny: [pattern] } } } as never, {
      ...example,
      headers: { 'user-agent': agent }
    }) === 'refuses the user agent: user_agent_denied'
  for (const [pattern, agent, expected] of [
    ['a*b', 'ab', true],
    ['a*b', 'axxB', true],
    ['a*b', 'a', false],
    ['aa*aa', 'aaa', false],
    ['*a*b*', 'xaxbx', true],
    ['*a*b*', 'xbxax', false],
    ['a**b', 'axb', true],
    ['*ab*ab', 'ab', false],
    ['*ab*ab', 'abab', true],
    ['a/1', 'A/1', true],
    ['a/1', 'a/12', false],
    ['a.*', 'ab', false]
  ] as const) {
    t.equal(isDenied(pattern, agent), expected, `${pattern} ${agent}`)
  }
  t.equal(isDenied(`${'*a'.repeat(50)}*b`, 'a'.repeat(1000)), false, 'in linear time')
})

t.test('lists without an effect are faults, or warned of', async (t) => {
  const problems = (options: object): string[] => {
    const warnings: { path: string; message: string }[] = []
    const file = {
      services: { a: { instances: ['http://127.0.0.1:1'] } },
      edge: { userAgent: options },
      routes: [{ name: 'a', match: { path: '/' }, service: 'a' }]
    }
    try {
      parseConfig(JSON.stringify(file), 'gateway.yaml', {}, (warning) => void warnings.push(warning))
      return warnings.map(({ path, message }) => `${path}: ${message}`)
    } catch (error) {
      if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
      throw error
    }
  }
  t.match(problems({}), [/refuses nothing/])
  t.match(problems({ allow: ['a/*'], deny: ['b/*'] }), [/under "except"/])
  t.match(problems({ allow: ['a/*'], except: ['b/*'] }), [/except: has no effect without "deny"/])
  t.match(problems({ deny: ['*'] }), [/is any user agent/])
  t.match(problems({ deny: ['/bot/i'] }), [/an expression is written/])
  t.match(problems({ deny: ['/^(a+)+\\b$/'] }), [/not a regular expression/])
  t.match(problems({ deny: ['^bot'] }), [/an expression is written/])
  t.match(problems({ deny: ['b\u00e9'] }), [/printable ASCII/])
  t.match(problems({ deny: ['bot'] }), [/write "\*bot\*"/])
  t.match(problems({ denylist: ['bot'] }), [/write "deny"/])
  t.same(problems({ deny: ['*bot*'] }), [])
})
