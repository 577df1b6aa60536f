/** `edge.cache`: purges by the admin API. */
import t from 'tap'
import { cachingGateway, respond } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'

t.test('purges by path, prefix, tag, host and route', async (t) => {
  const { client, seen, purge, status } = await cachingGateway(t, (request, response) => {
    const [, tag] = request.url!.split('/')
    respond(response, 'x', {
      'cache-control': 'max-age=60',
      'surrogate-key': `all ${tag}`,
      'cache-tag': `${tag}-b, c d`
    })
  })
  const paths = ['/a/1', '/a/1?x=1', '/a/2', '/b/1', '/ab']
  const stored = async () => {
    const before = seen.length
    for (const path of paths) await client.ask(path, { headers: { 'cache-control': 'only-if-cached' } })
    t.equal(seen.length, before)
    return (await status()).stores[0]?.routes[0]?.entries ?? 0
  }
  const fill = async () => {
    for (const path of paths) await client.ask(path)
    t.equal(await stored(), 5)
  }
  const cases: [query: string, purged: number][] = [
    ['path=/a/1', 2],
    ['path=/a/1%3Fx=1', 1],
    ['path=/none', 0],
    ['prefix=/a/', 3],
    ['prefix=/a', 4],
    ['tag=a', 3],
    ['tag=b-b', 1],
    ['tag=c d', 5],
    ['tag=all&prefix=/b', 1],
    [`host=127.0.0.1:${client.port}`, 5],
    ['host=other.example', 0],
    ['route=all', 5],
    ['all=true', 5]
  ]
  for (const [query, purged] of cases) {
    await fill()
    t.strictSame(await purge(query), { statusCode: 200, body: { purged, memory: true, redis: false } }, query)
    t.equal(await stored(), 5 - purged, query)
  }
  for (const query of ['', 'path=', 'pth=/a', 'path=/a&path=/b', 'all=yes', 'path=a/1', 'prefix=a'])
    t.match(await purge(query), { statusCode: 400 }, query)
  t.match(await purge('route=al'), {
    statusCode: 404,
    body: { message: 'no route is named "al"; did you mean "all"?' }
  })
  t.match(await purge('route=__proto__&path=/a'), { statusCode: 404, body: { message: /^no route is named/ } })
})

t.test('a purge also concerns responses that are being received', async (t) => {
  let finish = () => {}
  const { client, seen, purge } = await cachingGateway(t, (_request, response, count) => {
    response.writeHead(200, { 'cache-control': 'max-age=60' }).write('a')
    if (count > 1) response.end()
    else finish = () => response.end()
  })
  const first = client.begin('/')
  await first.data
  t.strictSame(await purge('tag=none'), { statusCode: 200, body: { purged: 0, memory: true, redis: false } })
  finish()
  t.ok((await first.response).isWhole)
  await client.ask('/')
  t.equal(seen.length, 2)
  await eventually(async () => /hit/.test(String((await client.ask('/')).headers['cache-status'])))
})
