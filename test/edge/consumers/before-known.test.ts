/** Options of consumers for concerns that act before the consumer is known: `shedPriority`, `bodyTimeout` and `bodyRate`. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, startService, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const bearer = (sub: string) => ({ authorization: `Bearer ${token(claims({ sub }))}` })
const named = (name: string, edge: object) => ({ name, jwt: { sub: name }, edge })

/** A service that holds the responses to `/held`, and a gateway with routes of all priorities. */
async function start(
  t: Test,
  config: { edge: object; consumers: object; more?: object; files?: Record<string, string> }
) {
  const held: (() => void)[] = []
  const service = await startService((request, response) => {
    const respond = () => request.resume().once('end', () => response.end('well'))
    if (request.url!.endsWith('/held')) held.push(respond)
    else respond()
  })
  t.teardown(service.close)
  const root = await folder(t, config.files ?? {})
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: { port: 0 },
    services: { any: { instances: [service.url] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'low', match: { path: '/low' }, service: 'any', edge: { shedPriority: 'low' } },
      { name: 'high', match: { path: '/high' }, service: 'any', edge: { shedPriority: 'high' } },
      { name: 'open', match: { path: '/open' }, service: 'any', edge: { jwt: false } }
    ],
    consumers: config.consumers,
    ...config.more,
    edge: { jwt: { secret }, ...config.edge }
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  return { root, held, ...gateway }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, shedPriority of consumers`, async (t) => {
    const consumers = [named('vip', { shedPriority: 'high' }), named('batch', { shedPriority: 'low' })]
    const { port, held, server } = await start(t, {
      edge: { overload: { requests: 10 } },
      consumers,
      more: { listen: { port: 0, ...listenFor(t, protocol) } }
    })
    const { ask, begin } = anyClient(t, protocol, port)
    const statuses = (path: string) =>
      Promise.all(['batch', 'bob', 'vip'].map(async (sub) => (await ask(path, { headers: bearer(sub) })).status))
    const isOpen = async () => (await ask('/open')).status
    const calls = Array.from({ length: 9 }, () => begin('/open/held'))
    await eventually(() => held.length === 9)
    t.same(await statuses('/x'), [503, 200, 200], 'from 90 % on')
    t.same(await statuses('/low'), [503, 503, 200], 'a route of low priority')
    t.same(await statuses('/high'), [503, 200, 200], 'a consumer of low priority on a route of high priority')
    t.equal(await isOpen(), 200)
    calls.push(begin('/open/held'))
    await eventually(() => held.length === 10)
    t.same(await statuses('/x'), [503, 503, 200], 'from 100 % on')
    t.equal(await isOpen(), 503)
    const refused = await ask('/x', { headers: bearer('bob') })
    t.equal(refused.headers['retry-after'], '1')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_OUT_OF_CAPACITY' })
    t.equal(
      (await ask('/x', { headers: { authorization: 'Bearer no' } })).status,
      401,
      'whose consumer cannot be known'
    )
    calls.push(begin('/vip/held', { headers: bearer('vip') }))
    await eventually(() => held.length === 11)
    t.same(await statuses('/x'), [503, 503, 503], 'from 110 % on')
    t.equal((await ask('/x', { headers: { authorization: 'Bearer no' } })).status, 503, 'before authentication')
    held.splice(0).forEach((respond) => void respond())
    for (const call of calls) t.equal((await call.response).status, 200)
    await eventually(async () => (await statuses('/low')).every((status) => status === 200), 'all are free again')
    const metrics = await server.metrics.metrics()
    t.match(metrics, /jingwei_edge_refusals_total\{concern="overload",route="all",code="JW_OUT_OF_CAPACITY"\} \d+\n/)
  })

  t.test(
    `over ${protocol}, requests that wait for their consumer take no place, and stay counted in no case`,
    async (t) => {
      const decisions: (() => void)[] = []
      const decider = await startService((_request, response) => decisions.push(() => response.end()))
      t.teardown(decider.close)
      const { port, held } = await start(t, {
        edge: { overload: { requests: 10 }, forwardAuth: { url: decider.url } },
        consumers: [named('vip', { shedPriority: 'high', forwardAuth: false })],
        more: {
          listen: { port: 0, ...listenFor(t, protocol) },
          routes: [
            { name: 'all', match: { path: '/' }, service: 'any' },
            { name: 'open', match: { path: '/open' }, service: 'any', edge: { jwt: false, forwardAuth: false } }
          ]
        }
      })
      const { ask, begin } = anyClient(t, protocol, port)
      const calls = Array.from({ length: 10 }, () => begin('/open/held'))
      await eventually(() => held.length === 10)
      const waiting = Array.from({ length: 10 }, () => begin('/x', { headers: bearer('bob') }))
      await eventually(() => decisions.length === 10)
      t.equal((await ask('/x', { headers: bearer('vip') })).status, 503, 'at most as many wait as may be in flight')
      await waiting.pop()!.leave()
      await eventually(async () => (await ask('/x', { headers: bearer('vip') })).status === 200, 'one place is free')
      decisions.splice(0).forEach((decide) => void decide())
      for (const { response } of waiting) t.equal((await response).status, 503, 'the decision is made then')
      held.splice(0).forEach((respond) => void respond())
      for (const call of calls) t.equal((await call.response).status, 200)
      const again = Array.from({ length: 10 }, () => begin('/open/held'))
      await eventually(() => held.length === 10, 'ten may be in flight again')
      t.equal((await ask('/open')).status, 503)
      t.equal((await ask('/x', { headers: bearer('vip') })).status, 200)
      held.splice(0).forEach((respond) => void respond())
      for (const call of again) t.equal((await call.response).status, 200)
    }
  )

  t.test(`over ${protocol}, bodyTimeout and bodyRate of consumers`, async (t) => {
    const consumers = [
      named('patient', { bodyTimeout: false }),
      named('hasty', { bodyTimeout: '300ms' }),
      named('fast', { bodyRate: '1mb' })
    ]
    const sendingTo = async (body: string) => {
      const listen = { port: 0, timeouts: { bodyIdle: '600ms', body }, ...listenFor(t, protocol) }
      const { port } = await start(t, { edge: { bodyRate: false }, consumers, more: { listen } })
      const { begin } = anyClient(t, protocol, port)
      /** Sends a byte every 20 ms until there is a response, or the body is complete. */
      return async (sub: string, chunks: number) => {
        const call = begin('/x', { method: 'POST', headers: bearer(sub), streams: true })
        let status = 0
        void call.begun.then((section) => {
          status = section.status
        })
        for (let sent = 0; sent < chunks && status === 0; sent++) {
          call.send('x')
          await setTimeout(20)
        }
        if (status === 0) call.end()
        return (await call.begun).status
      }
    }
    const [slow, strict] = [await sendingTo('60s'), await sendingTo('600ms')]
    const never = 3000
    t.same(await Promise.all([slow('bob', 60), slow('hasty', never), slow('fast', never)]), [200, 408, 408])
    t.same(await Promise.all([strict('bob', never), strict('patient', 60)]), [408, 200])
  })
}

t.test('shedPriority of a list that changes, in shadow mode, and of handshakes', async (t) => {
  const { root, port, held, log } = await start(t, {
    edge: { overload: { requests: 10 } },
    consumers: { file: 'people.json' },
    files: { 'people.json': '[]' }
  })
  const { ask, begin } = anyClient(t, 'HTTP/1.1', port)
  const calls = Array.from({ length: 10 }, () => begin('/open/held'))
  await eventually(() => held.length === 10)
  const status = async (sub: string) => (await ask('/x', { headers: bearer(sub) })).status
  t.same([await status('vip'), await status('bob')], [503, 503])
  t.equal((await ask('/x', { headers: { authorization: 'Bearer no' } })).status, 503, 'no priority could save it')
  await writeFile(join(root, 'people.json'), JSON.stringify([named('vip', { shedPriority: 'high' })]))
  await eventually(async () => (await status('vip')) === 200)
  t.equal(await status('bob'), 503)
  const upgrading = async (sub: string) => {
    const client = connect(port, handshake('/ws', [`Authorization: ${bearer(sub).authorization}`]))
    const line = (await client.until('\r\n')).toString()
    client.socket.destroy()
    return Number(/ (\d+) /.exec(line)![1])
  }
  t.equal(await upgrading('bob'), 503)
  t.not(await upgrading('vip'), 503, 'the service takes no WebSockets')
  await writeFile(join(root, 'people.json'), '[]')
  await eventually(async () => (await status('vip')) === 503)
  held.splice(0).forEach((respond) => void respond())
  for (const call of calls) t.equal((await call.response).status, 200)
  await eventually(async () => (await status('bob')) === 200)

  const trial = await start(t, {
    edge: { overload: { requests: 10, mode: 'shadow' } },
    consumers: [named('vip', { shedPriority: 'high' })]
  })
  const client = anyClient(t, 'HTTP/1.1', trial.port)
  const more = Array.from({ length: 10 }, () => client.begin('/open/held'))
  await eventually(() => trial.held.length === 10)
  for (const sub of ['vip', 'bob']) t.equal((await client.ask('/x', { headers: bearer(sub) })).status, 200)
  await eventually(() => trial.log.filter(({ msg }) => msg === 'request').length === 2)
  const shadowOf = (sub: string) => trial.log.find(({ consumer }) => consumer === sub)!.shadow
  t.equal(shadowOf('vip'), undefined)
  t.same(shadowOf('bob'), [{ concern: 'overload', error: 'JW_OUT_OF_CAPACITY' }], 'once')
  trial.held.splice(0).forEach((respond) => void respond())
  for (const call of more) t.equal((await call.response).status, 200)
  t.notOk(log.some(({ level }) => Number(level) >= 60))
})
