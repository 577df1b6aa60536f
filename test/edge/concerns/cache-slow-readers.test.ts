// slow: starts Redis
/** Stored bodies that slow clients read: their memory is bounded, for each client too, and counts a shared body once. */
import { once } from 'node:events'
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import http2 from 'node:http2'
import type { Test } from 'tap'
import t from 'tap'
import { mostOfClient } from '../../../plugins/edge/concerns/cache/held-bodies.ts'
import type { Caching } from '../../helpers/edge/caching.ts'
import { cachingNodes, respond } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startRedis } from '../../helpers/redis.ts'

const size = 1_000_000
const bodyOf = (path: string) => Buffer.alloc(size, `${path} `)
const mostBodies = Math.floor(mostOfClient / size)

async function gaugeOf({ metrics }: Caching, series: string): Promise<number> {
  const line = (await metrics()).split('\n').find((each) => each.startsWith(`${series} `))
  return Number(line?.slice(series.length + 1) ?? Number.NaN)
}
const heldIn = (node: Caching) => gaugeOf(node, 'jingwei_edge_cache_held_bytes')

async function start(t: Test, store: 'memory' | 'redis'): Promise<Caching> {
  const redis = store === 'redis' ? await startRedis() : null
  if (redis !== null) t.teardown(() => redis.stop())
  const startNode = await cachingNodes(t, ({ url = '' }, response) =>
    respond(response, bodyOf(url), { 'cache-control': 'public, max-age=600' })
  )
  const node = await startNode({
    protocol: 'HTTP/2',
    listen: { trustProxy: ['127.0.0.1'] },
    cache: { store, maxSize: '256mb', maxEntry: '2mb' },
    ...(redis !== null && { more: { redis: { url: redis.url, timeout: '10s' } } })
  })
  if (store === 'redis') await eventually(async () => (await gaugeOf(node, 'jingwei_edge_cache_redis_up')) === 1)
  return node
}

function sessionTo(t: Test, port: number): ClientHttp2Session {
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  return session
}

/** Asks for a response of which nothing is read: HTTP/2 lets 64 KB of it through. */
async function slowly(
  session: ClientHttp2Session,
  path: string,
  address: string
): Promise<[ClientHttp2Stream, string]> {
  const stream = session.request({ ':path': path, 'x-forwarded-for': address, ':authority': 'api.example' })
  const [fields] = (await once(stream, 'response')) as [Record<string, string>]
  return [stream, fields['cache-status'] ?? '']
}

async function rest(stream: ClientHttp2Stream): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

for (const store of ['memory', 'redis'] as const) {
  t.test(`${store}: one response that many read slowly is held once, until the last one has it`, async (t) => {
    const node = await start(t, store)
    await node.client.ask('/a', { headers: { ':authority': 'api.example' } })
    t.equal(await heldIn(node), 0)
    const session = sessionTo(t, node.port)
    const streams: ClientHttp2Stream[] = []
    for (let at = 0; at < 10; at++) {
      const [stream, status] = await slowly(session, '/a', `10.0.0.${at}`)
      t.match(status, /hit/)
      streams.push(stream)
    }
    t.equal(await heldIn(node), size)
    for (const stream of streams.slice(0, 5)) stream.close(http2.constants.NGHTTP2_CANCEL)
    for (const stream of streams.slice(5, 9)) t.ok((await rest(stream)).equals(bodyOf('/a')))
    t.equal(await heldIn(node), size)
    t.ok((await rest(streams[9]!)).equals(bodyOf('/a')))
    await eventually(async () => (await heldIn(node)) === 0)
    t.equal(node.seen.length, 1)
  })
}

t.test('a client that reads many responses slowly gets further ones from the service', async (t) => {
  const node = await start(t, 'memory')
  const paths = Array.from({ length: mostBodies + 5 }, (_, at) => `/${at}`)
  for (const path of paths) await node.client.ask(path, { headers: { ':authority': 'api.example' } })
  const session = sessionTo(t, node.port)
  const streams: ClientHttp2Stream[] = []
  let hits = 0
  for (const path of paths) {
    const [stream, status] = await slowly(session, path, '10.0.0.1')
    if (status.includes('hit')) hits++
    streams.push(stream)
  }
  t.equal(hits, mostBodies)
  t.ok((await heldIn(node)) <= mostOfClient)
  const [other, status] = await slowly(session, '/0', '10.0.0.2')
  t.match(status, /hit/, 'others are not affected')
  t.ok((await rest(other)).equals(bodyOf('/0')))
  const all = await Promise.all(streams.map(rest))
  t.ok(all.every((body, at) => body.equals(bodyOf(paths[at]!))))
  await eventually(async () => (await heldIn(node)) === 0)
  const [again, hit] = await slowly(session, paths.at(-1)!, '10.0.0.1')
  t.match(hit, /hit/)
  await rest(again)
})
