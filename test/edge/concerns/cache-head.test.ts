// slow: takes about 5 s
/** HEAD and the stored response to GET (RFC 9111, 4.3.4 and 4.3.5), and ranges that the stored response does not have. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { cachingGateway } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(redis.stop)
const stores = { memory: {}, redis: { redis: { url: redis.url, timeout: '5s' } } }

let started = 0

type Fields = Record<string, string>

const start = async (
  t: Parameters<typeof cachingGateway>[0],
  store: keyof typeof stores,
  protocol: 'HTTP/1.1' | 'HTTP/2',
  respond: (request: IncomingMessage, response: ServerResponse) => unknown
) => {
  const caching = await cachingGateway(t, (request, response) => void respond(request, response), {
    cache: { store },
    more: stores[store],
    protocol
  })
  const { client } = caching
  const path = `/${++started}`
  const series = async (line: string) =>
    eventually(async () => store === 'memory' || (await caching.metrics()).includes(line))
  await series('jingwei_edge_cache_redis_up 1')
  /** Waits until Redis has this number of responses. */
  const stored = (count: number) =>
    series(`jingwei_edge_cache_redis_commands_total{command="store",result="ok"} ${count}`)
  const ask = async (method = 'GET', headers: Fields = {}) => {
    const { status, headers: given, body } = await client.ask(path, { method, headers })
    return { status, given, body: body.toString(), cache: String(given['cache-status']) }
  }
  return { ...caching, ask, stored }
}

for (const store of ['memory', 'redis'] as const) {
  for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const) {
    const of = `${store}, ${protocol}`

    t.test(`${of}: HEAD asks the service to confirm the response, and a 304 updates it`, async (t) => {
      const { ask, seen, pass, stored } = await start(t, store, protocol, (request, response) => {
        const isKnown = request.headers['if-none-match'] === '"a"'
        const fields = { etag: '"a"', 'cache-control': 'max-age=60', 'x-round': isKnown ? '2' : '1' }
        response.writeHead(isKnown ? 304 : 200, fields).end(isKnown ? undefined : Buffer.from('body'))
      })
      await ask()
      await stored(1)
      pass(61)
      const head = await ask('HEAD')
      t.match(head, { status: 200, body: '', cache: /^jingwei; fwd=stale; fwd-status=304; stored/ })
      t.match(head.given, { 'content-length': '4', 'x-round': '2' })
      await stored(2)
      t.match(await ask(), { status: 200, body: 'body', cache: /^jingwei; hit/, given: { 'x-round': '2' } })
      pass(61)
      t.match(await ask('HEAD', { 'if-none-match': '"a"' }), { status: 304, given: { etag: '"a"' } })
      t.equal(seen.length, 3)
    })

    for (const [what, second, isUpdated] of [
      ['the same ETag', { etag: '"a"', 'content-length': '4' }, true],
      ['the same Last-Modified, without a length', { 'last-modified': 'Mon, 30 Nov 2020 00:00:00 GMT' }, true],
      ['no validator', { 'content-length': '4' }, false],
      ['another ETag', { etag: '"b"', 'content-length': '4' }, false],
      ['the same ETag and another length', { etag: '"a"', 'content-length': '5' }, false],
      ['the same ETag, for one caller', { etag: '"a"', 'cache-control': 'private, max-age=60' }, false]
    ] as [string, Fields, boolean][]) {
      t.test(`${of}: a 200 to HEAD with ${what}`, async (t) => {
        const first = { etag: '"a"', 'last-modified': 'Mon, 30 Nov 2020 00:00:00 GMT', 'cache-control': 'max-age=60' }
        const { ask, seen, pass, stored } = await start(t, store, protocol, ({ method }, response) => {
          if (method === 'HEAD')
            response.writeHead(200, { 'cache-control': 'max-age=60', 'x-round': '2', ...second }).end()
          else response.writeHead(200, first).end(Buffer.from('body'))
        })
        await ask()
        await stored(1)
        pass(61)
        t.match(await ask('HEAD'), { status: 200, body: '', given: { 'x-round': '2' } })
        if (isUpdated) await stored(2)
        const { cache, body, given } = await ask()
        t.equal(body, 'body')
        t.equal(/; hit/.test(cache), isUpdated, cache)
        t.equal(given['x-round'], isUpdated ? '2' : undefined)
        if (isUpdated) t.equal(given['content-length'], '4')
        t.equal(seen.length, isUpdated ? 2 : 3)
      })
    }

    t.test(`${of}: a 416 has none of the times by which caches of others could store it`, async (t) => {
      const fields = {
        'cache-control': 'public, max-age=60',
        'cdn-cache-control': 'max-age=60',
        'surrogate-control': 'max-age=60',
        expires: 'Sun, 30 Nov 2036 00:00:00 GMT',
        'content-type': 'text/plain',
        etag: '"a"',
        vary: 'accept'
      }
      const { ask, stored } = await start(t, store, protocol, (_request, response) => {
        response.writeHead(200, fields).end(Buffer.from('body'))
      })
      await ask()
      await stored(1)
      const { status, given, cache } = await ask('GET', { range: 'bytes=4-' })
      t.equal(status, 416)
      t.match(cache, /; hit/)
      const { 'cache-control': control, 'content-range': range, vary, etag } = given
      t.strictSame([control, range, vary, etag], ['no-store', 'bytes */4', 'accept', '"a"'])
      for (const name of ['expires', 'cdn-cache-control', 'surrogate-control', 'age', 'content-type'])
        t.equal(given[name], undefined, name)
      t.match(await ask(), { status: 200, given: { expires: fields.expires } })
    })

    t.test(`${of}: case makes no difference in languages and codings`, async (t) => {
      const { ask, stored } = await start(t, store, protocol, (_request, response) => {
        const vary = 'accept-language, accept-encoding, x-name'
        response.writeHead(200, { 'cache-control': 'max-age=60', vary }).end(Buffer.from('body'))
      })
      const headers = { 'accept-language': 'en, de-AT', 'accept-encoding': 'gzip', 'x-name': 'a' }
      await ask('GET', headers)
      await stored(1)
      t.match(await ask('GET', { ...headers, 'accept-language': 'EN,de-at', 'accept-encoding': 'GZip' }), {
        cache: /; hit/
      })
      t.match(await ask('GET', { ...headers, 'accept-language': 'de-AT, en' }), { cache: /vary-miss/ })
      t.match(await ask('GET', { ...headers, 'x-name': 'A' }), { cache: /miss/ })
    })
  }
}
