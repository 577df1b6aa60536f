/** `edge.cache`: equal requests at a time take one fetch, unless the response is for one caller only. */
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { protocols } from '../../helpers/edge/asking-client.ts'
import type { CachingOptions } from '../../helpers/edge/caching.ts'
import { cachingGateway, respond } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'

/** A gateway whose service holds its responses until the test sends them. */
async function held(t: Test, options: CachingOptions = {}) {
  const responses: ServerResponse[] = []
  const gateway = await cachingGateway(t, (_request, response) => void responses.push(response), options)
  /** Waits for the number of requests that the service has got. */
  const arrived = (count: number) => eventually(() => responses.length === count)
  return { ...gateway, responses, arrived }
}

/** Waits until so many requests have passed the gateway's hooks, and so wait or were sent. */
async function counted(metrics: () => Promise<string>, pattern: RegExp): Promise<void> {
  await eventually(async () => pattern.test(await metrics()))
}

for (const protocol of protocols) {
  t.test(`${protocol}: many requests, one fetch`, async (t) => {
    const { client, responses, arrived, seen } = await held(t, { protocol })
    const all = Array.from({ length: 30 }, () => client.ask('/'))
    await arrived(1)
    // A request for something else shows that those before it have arrived.
    const other = client.ask('/other')
    await arrived(2)
    respond(responses[1]!, 'other', { 'cache-control': 'no-store' })
    await other
    respond(responses[0]!, 'body', { 'cache-control': 'max-age=60' })
    const given = await Promise.all(all)
    t.ok(given.every(({ status, body, isWhole }) => status === 200 && body.toString() === 'body' && isWhole))
    t.ok(
      given.some(({ headers }) => /^jingwei; fwd=uri-miss; collapsed; ttl=\d+$/.test(String(headers['cache-status'])))
    )
    t.equal(seen.length, 2)
  })
}

t.test('a response that is not stored reaches one client; the others ask for themselves, at once', async (t) => {
  for (const directive of ['private, max-age=60', 'no-store', 'max-age=0']) {
    const { client, responses, arrived } = await held(t)
    const all = Array.from({ length: 5 }, () => client.ask('/'))
    await arrived(1)
    // The header section decides; the body may take as long as it likes.
    responses[0]!.writeHead(200, { 'cache-control': directive, 'content-length': '2' }).flushHeaders()
    await arrived(5)
    responses[0]!.end('r0')
    for (const [index, response] of responses.slice(1).entries())
      respond(response, `r${index + 1}`, { 'cache-control': directive })
    const bodies = (await Promise.all(all)).map(({ body }) => body.toString())
    t.strictSame(bodies.toSorted(), ['r0', 'r1', 'r2', 'r3', 'r4'], directive)
    const later = [client.ask('/'), client.ask('/')]
    await arrived(7)
    for (const response of responses.slice(5)) respond(response, 'x', { 'cache-control': directive })
    await Promise.all(later)
  }
})

t.test('if the first client leaves or its fetch fails, another fetch is made', async (t) => {
  const { client, responses, arrived, metrics } = await held(t, { more: { mesh: { retry: false } } })
  const first = client.begin('/')
  await arrived(1)
  const others = [client.ask('/'), client.ask('/')]
  await counted(metrics, /jingwei_edge_cache_requests_total\{route="all",result="miss"\} 1/)
  await first.leave()
  await arrived(2)
  responses[1]!.destroy()
  await eventually(() => responses.length > 2)
  await eventually(() => {
    for (const response of responses.slice(2))
      if (!response.headersSent) respond(response, 'x', { 'cache-control': 'max-age=60' })
    return responses.length >= 3
  })
  const given = await Promise.all(others)
  t.strictSame(given.map(({ status }) => status).toSorted(), [200, 502])
})

t.test('callers with different credentials wait, and share only a public response', async (t) => {
  for (const [directive, fetches] of [
    ['max-age=60, public', 1],
    ['max-age=60', 4]
  ] as const) {
    const { client, responses, arrived } = await held(t)
    const all = ['a', 'b', 'c', 'd'].map((name) => client.ask('/', { headers: { authorization: name } }))
    await arrived(1)
    respond(responses[0]!, '0', { 'cache-control': directive })
    await arrived(fetches)
    for (const [index, response] of responses.slice(1).entries())
      respond(response, String(index + 1), { 'cache-control': directive })
    const bodies = (await Promise.all(all)).map(({ body }) => body.toString())
    t.equal(new Set(bodies).size, fetches, directive)
  }
})

t.test('variants do not wait for each other once Vary is known', async (t) => {
  const { client, responses, arrived } = await held(t)
  const fields = { 'cache-control': 'max-age=60', vary: 'accept-language' }
  const ask = (language: string) => client.ask('/', { headers: { 'accept-language': language } })
  const first = ask('en')
  await arrived(1)
  respond(responses[0]!, 'en', fields)
  await first
  const both = [ask('de'), ask('fr')]
  await arrived(3)
  for (const response of responses.slice(1)) respond(response, String(response.req.headers['accept-language']), fields)
  t.strictSame(
    (await Promise.all(both)).map(({ body }) => body.toString()),
    ['de', 'fr']
  )
})

t.test('waiting ends after the time of the option', async (t) => {
  const { client, responses, arrived } = await held(t, { cache: { coalesce: '50ms' } })
  const all = [client.ask('/'), client.ask('/')]
  await arrived(2)
  for (const response of responses) respond(response, 'x', { 'cache-control': 'max-age=60' })
  t.ok((await Promise.all(all)).every(({ status }) => status === 200))
  const off = await held(t, { cache: { coalesce: 0 } })
  const apart = [off.client.ask('/'), off.client.ask('/')]
  await off.arrived(2)
  for (const response of off.responses) respond(response, 'x', { 'cache-control': 'max-age=60' })
  await Promise.all(apart)
})

t.test('an expired response is fetched once in the background', async (t) => {
  const { client, responses, arrived, seen, pass } = await held(t)
  const fields = { 'cache-control': 'max-age=10, stale-while-revalidate=60' }
  const first = client.ask('/')
  await arrived(1)
  respond(responses[0]!, 'old', fields)
  await first
  pass(11)
  for (let index = 0; index < 10; index++)
    t.equal((await client.ask('/', { method: index === 5 ? 'HEAD' : 'GET' })).status, 200)
  await arrived(2)
  t.equal(seen[1]!.method, 'GET')
  respond(responses[1]!, 'new', { ...fields, date: new Date(Date.now() + 11_000).toUTCString() })
  await eventually(async () => (await client.ask('/')).body.toString() === 'new')
  t.equal(responses.length, 2)
})

t.test('a client that leaves in the middle of a body does not keep others from sharing the next fetch', async (t) => {
  const { client, responses, arrived } = await held(t)
  const first = client.begin('/')
  await arrived(1)
  responses[0]!.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': '10' }).write('part')
  await first.data
  await first.leave()
  await eventually(() => responses[0]!.destroyed)
  const both = [client.ask('/'), client.ask('/')]
  await arrived(2)
  const other = client.ask('/other')
  await arrived(3)
  respond(responses[2]!, 'other')
  await other
  respond(responses[1]!, 'body', { 'cache-control': 'max-age=60' })
  t.ok((await Promise.all(both)).every(({ body }) => body.toString() === 'body'))
  t.equal(responses.length, 3)
})
