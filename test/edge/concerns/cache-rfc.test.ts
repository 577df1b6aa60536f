// slow: takes about 15 s
/** `edge.cache` and the public tests for HTTP caches (cache-tests.fyi): none that is required fails. */
import http from 'node:http'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { startGateway, startService } from '../../helpers/gateway.ts'
import { unpacked } from '../../helpers/packages.ts'

interface Case {
  readonly id: string
  readonly kind?: 'required' | 'optimal' | 'check'
  readonly depends_on?: readonly string[]
}
type Result = true | readonly [name: string, message: string]
type Handle = (segments: string[], request: http.IncomingMessage, response: http.ServerResponse) => void
interface Asked {
  readonly method?: string
  readonly headers?: readonly (readonly [string, string])[]
  readonly body?: string
}

/** Required tests that contradict another required one: a list as `Age` is stale there, whatever its values. */
const contradicted = new Set(['age-parse-prefix'])

/** Optional tests that fail on purpose. */
const declined: Readonly<Record<string, readonly string[]>> = {
  'parts of bodies are not stored': [
    'partial-store-partial-reuse-partial',
    'partial-store-partial-reuse-partial-byterange',
    'partial-store-partial-reuse-partial-absent',
    'partial-store-partial-reuse-partial-suffix',
    'partial-store-partial-complete'
  ],
  'one client could cause the error for all others': ['status-400-fresh'],
  'cookies, and credentials without `public`, keep a response from others': [
    'other-authorization-must-revalidate',
    'other-set-cookie',
    'other-cookie'
  ],
  'only GET and HEAD are answered from the cache': ['method-POST'],
  'services may prefer the first of several languages, and all that they see is in the key': [
    'vary-cache-key',
    'vary-normalise-lang-order',
    'vary-normalise-lang-select'
  ],
  'it expects 304 for a date before `Date`, at which there may have been another version (RFC 9111, 4.3.2)': [
    'conditional-lm-fresh-no-lm'
  ]
}

t.test('no required test fails, and no optional one without a reason', async (t) => {
  const folder = await unpacked(
    'http-cache-tests',
    '0.4.5',
    'sha512-DjuwN9nUZXLTW+wav1LRESCZNVxl8SshwOy4z1pxuWbWt5/ay6sM9QQ1lebBaDO6P1IMBoK6mdf+PuVP/QNL8A=='
  )
  const load = async (file: string) => (await import(pathToFileURL(join(folder, file)).href)) as Record<string, unknown>
  const { default: suites } = (await load('tests/index.mjs')) as { default: { tests: Case[] }[] }
  const { runTests, getResults } = (await load('client/runner.mjs')) as {
    runTests: (...args: unknown[]) => Promise<void>
    getResults: () => Record<string, Result>
  }
  const handlers: Record<string, Handle> = {}
  for (const name of ['config', 'test', 'state'])
    handlers[name] = (await load(`server/handle-${name}.mjs`)).default as Handle

  const service = await startService((request, response) => {
    const [, name = '', ...segments] = new URL(request.url!, 'http://h').pathname.split('/')
    handlers[name]!(segments, request, response)
  })
  t.teardown(service.close)
  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'M-SEARCH']
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/', methods }, service: 'any' }],
    mesh: { retry: false },
    edge: { cache: { heuristic: '10%', key: { ignoreHeaders: ['test-id', 'test-name', 'req-num'] } } }
  })
  t.teardown(gateway.close)
  const agent = new http.Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  await runTests(suites, (url: string, init?: Asked) => fetchFrom(agent, url, init), false, gateway.url, 1000)

  const results = getResults()
  const cases = new Map(suites.flatMap(({ tests }) => tests).map((each) => [each.id, each]))
  /** A test says nothing if one that it depends on has failed, or if its preparation has. */
  const verdict = ({ id, kind = 'required', depends_on = [] }: Case): string => {
    const result = results[id]
    if (result === undefined || depends_on.some((other) => verdict(cases.get(other)!) !== 'passed')) return 'untested'
    if (result === true) return 'passed'
    return result[0] === 'Setup' ? 'untested' : kind
  }
  const verdicts = Map.groupBy(cases.values(), verdict)
  const failed = (verdicts.get('required') ?? []).filter(({ id }) => !contradicted.has(id))
  t.strictSame(
    failed.map(({ id }) => [id, results[id]]),
    []
  )
  t.strictSame(
    (verdicts.get('optimal') ?? []).map(({ id }) => id).toSorted(),
    Object.values(declined).flat().toSorted()
  )
  t.ok(verdicts.get('passed')!.length >= 265, `${verdicts.get('passed')!.length} passed`)
})

/** As `fetch`, without the fields that it adds by itself, and without following redirects. */
function fetchFrom(agent: http.Agent, url: string, { method = 'GET', headers = [], body }: Asked = {}) {
  const { promise, resolve, reject } = Promise.withResolvers<object>()
  const length = body === undefined ? [] : ['Content-Length', String(Buffer.byteLength(body))]
  const fields = [...headers.flat(), 'Host', new URL(url).host, ...length]
  const request = http.request(url, { method, agent, headers: fields }, (response) => {
    const chunks: Buffer[] = []
    response.on('data', (chunk: Buffer) => chunks.push(chunk))
    response.on('error', reject)
    response.on('end', () => {
      const given = new Headers()
      const { rawHeaders, statusCode: status, statusMessage: statusText } = response
      for (let at = 0; at < rawHeaders.length; at += 2) given.append(rawHeaders[at]!, rawHeaders[at + 1]!)
      resolve({ status, statusText, headers: given, text: async () => Buffer.concat(chunks).toString() })
    })
  })
  request.on('error', reject)
  request.end(body)
  return promise
}
