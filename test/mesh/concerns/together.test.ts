/** Collapsing, fallbacks, retries, hedges and replayable bodies together, with arbitrary services and callers. */
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { FallbackOptions } from '../../../plugins/mesh/concerns/fallback/options.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Watched } from '../../helpers/mesh/chaos.ts'
import { seeded } from '../../helpers/mesh/instances.ts'
import { meshOf, meterStub, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

const on = ['no-instance', 'connect-failure', 'reset', 'timeout', '5xx', 'overloaded'] as FallbackOptions['on']
const policy: Partial<MeshPolicy> = {
  timeout: 2000,
  attemptTimeout: 200,
  retry: { ...retryOptions, attempts: 1, on: ['connect-failure', 'reset', '5xx', 429], budget: 1 },
  hedge: { after: 10, attempts: 2, methods: ['GET', 'HEAD', 'PUT'] },
  collapse: { headers: [], excludeHeaders: [], maxBody: 50_000 },
  fallback: [
    { on, stale: { maxAge: 1000, maxEntries: 10, maxBody: 10_000, excludeHeaders: [] } },
    { on, service: 'other' },
    { on, status: 200, body: 'fixed' }
  ]
}

t.test('each caller gets one end, and no state is left', async (t) => {
  const random = seeded(7)
  const sizes = [0, 10, 20_000, 200_000]
  function misbehave(response: ServerResponse, echo: string): void {
    const draw = random()
    const text = echo || 'x'.repeat(sizes[Math.floor(random() * sizes.length)]!)
    const respond = () => {
      if (response.socket === null || response.socket.destroyed) return
      if (random() < 0.5) response.setHeader('content-length', text.length)
      response.write(text.slice(0, text.length / 2))
      response.end(text.slice(text.length / 2))
    }
    if (draw < 0.45) respond()
    else if (draw < 0.6) setTimeout(respond, 30)
    else if (draw < 0.75) response.writeHead(503).end('busy')
    else if (draw < 0.8) response.writeHead(429, { 'retry-after': '0' }).end()
    else if (draw < 0.9) response.socket?.resetAndDestroy()
    else if (draw < 0.95) {
      response.writeHead(200, { 'content-length': 100 }).write('part')
      setTimeout(() => response.socket?.resetAndDestroy(), 5)
    }
    // Else never.
  }
  const instances = await Promise.all(
    Array.from({ length: 3 }, (_, i) =>
      upstream(t, `${i}`, (request, response) => {
        const chunks: Buffer[] = []
        request.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
        request.on('end', () => misbehave(response, Buffer.concat(chunks).toString()))
      })
    )
  )
  const other = await upstream(t, 'other', (request, response) => {
    request.resume().on('end', () => response.writeHead(random() < 0.3 ? 503 : 200).end('other'))
  })
  const urls = instances.map(({ url }) => url)
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', urls, policy), service('other', [other.url])], { random, meter })
  const sources: Readable[] = []
  const all: { recorder: Watched; sent: string }[] = []
  for (let i = 0; i < 600; i++) {
    const recorder = new Watched()
    const put = random() < 0.3
    const sent = put ? `body ${i} `.repeat(1 + Math.floor(random() * 3000)) : ''
    const body = put ? Readable.from([sent.slice(0, 7), sent.slice(7, 100), sent.slice(100)]) : null
    if (body !== null) sources.push(body)
    const path = `/${Math.floor(random() * 5)}`
    const method = put ? 'PUT' : random() < 0.1 ? 'HEAD' : 'GET'
    mesh.dispatch({ origin: 'http://orders.mesh', path, method, body } as DispatchOptions, recorder)
    all.push({ recorder, sent })
    const act = random()
    if (act < 0.1) setTimeout(() => recorder.controller.abort(new Error('left')), random() * 40)
    else if (act < 0.2) {
      recorder.controller.pause()
      setTimeout(() => recorder.controller.resume(), random() * 60)
    }
    if (i % 10 === 9) await sleep(5)
  }
  await Promise.all(all.map(({ recorder }) => recorder.done))
  await sleep(50)
  t.strictSame(
    all.flatMap(({ recorder }) => recorder.wrong),
    []
  )
  const mixedUp = all.filter(
    ({ recorder, sent }) =>
      sent !== '' && recorder.status === 200 && recorder.error === null && !isOne(recorder.body, sent)
  )
  t.equal(mixedUp.length, 0, 'each caller gets its own echo, or a fallback')
  function isOne(body: string, sent: string): boolean {
    return body === sent || body === 'fixed' || body === 'other'
  }
  await eventually(() => mesh.status().every(({ active }) => active === 0), 'no call in flight')
  await eventually(
    () => mesh.status().every((each) => each.instances.every(({ active }) => active === 0)),
    'no attempt in flight'
  )
  t.match(mesh.status()[0]!.concerns, { retries: { active: 0 }, replay: { bytes: 0 } })
  await eventually(() => sources.every(({ destroyed }) => destroyed), 'all request bodies to be destroyed')
  for (const name of ['collapsed_total{orders}', 'hedges_total{orders,won}', 'fallbacks_total{orders,']) {
    t.ok(
      Object.keys(counts).some((each) => each.startsWith(`jingwei_mesh_${name}`)),
      name
    )
  }
})
