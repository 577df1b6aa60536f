/**
 * A program that calls services by Node's `fetch`, in each of the ways that a mesh offers, and compares bytes. It prints the
 * name of each exchange that was right. fetch.test.ts runs it with each version of Node, since each has its own undici.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createMesh, installFetch } from '../../../plugins/mesh-api.ts'

const { ORIGIN = '', TLS = '', CA = '', WS = '', OTHER = '', REFUSED = '' } = process.env

/** Requests that the service saw end before their response did. */
const aborted = async (): Promise<number> => Number(await (await fetch(`${ORIGIN}/aborted`)).text())

const settings = {
  services: {
    orders: { instances: [ORIGIN] },
    secure: { instances: [TLS], mesh: { tls: { ca: CA, serverName: 'localhost' } } },
    chat: { instances: [WS] },
    gone: { instances: [REFUSED] },
    fixed: {
      instances: [REFUSED],
      mesh: { fallback: [{ status: 200, headers: { 'x-fixed': 'yes' }, body: 'instead' }] }
    }
  }
}
const done: string[] = []
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const bytes = randomBytes(1_000_000)

/** Calls by a function with the parameters of `fetch`. */
async function exchanges(way: string, get: typeof fetch): Promise<void> {
  const at = (path: string, service = 'orders') => `http://${service}.mesh${path}`
  const right = (name: string) => done.push(`${way}: ${name}`)

  const json = await get(at('/json?a=%2F&b=1'), { headers: { 'x-one': '1' } })
  assert.deepEqual(await json.json(), { url: '/json?a=%2F&b=1', one: '1' })
  assert.deepEqual(json.headers.getSetCookie(), ['a=1', 'b=2'])
  assert.equal(json.headers.get('x-latin'), '\u00fc')
  assert.equal(json.url, at('/json?a=%2F&b=1'))
  right('json and headers')

  for (const service of ['orders', 'secure']) {
    const echoed = await get(at('/echo', service), { method: 'POST', body: bytes })
    assert.equal(digest(await echoed.bytes()), digest(bytes))
    right(`bytes there and back, ${service}`)
    const stream = new Blob([bytes]).stream()
    const streamed = await get(at('/echo', service), { method: 'POST', body: stream, duplex: 'half' } as RequestInit)
    assert.equal(digest(await streamed.bytes()), digest(bytes))
    right(`a stream there and back, ${service}`)
  }
  const form = new FormData()
  form.set('file', new Blob([bytes]), 'bytes.bin')
  const posted = await get(at('/echo'), { method: 'POST', body: form })
  assert.ok((await posted.bytes()).length > bytes.length)
  right('a form')

  for (const coding of ['gzip', 'br', 'deflate']) {
    const response = await get(at(`/compressed?${coding}`))
    assert.equal(response.headers.get('content-encoding'), coding)
    assert.equal(digest(await response.bytes()), digest(Buffer.from('compressed '.repeat(50_000))))
    right(`decompressed ${coding}`)
  }
  const head = await get(at('/json'), { method: 'HEAD' })
  assert.deepEqual([head.status, await head.text()], [200, ''])
  const missing = await get(at('/missing'))
  assert.deepEqual([missing.status, missing.statusText, await missing.text()], [404, 'Not There', 'no'])
  assert.deepEqual([(await get(at('/empty'))).status], [204])
  right('HEAD, 404, 204')

  const moved = await get(at('/moved'))
  assert.deepEqual([moved.redirected, moved.url], [true, at('/json')])
  await moved.text()
  const kept = await get(at('/kept'), { method: 'POST', body: 'again' })
  assert.deepEqual([kept.redirected, await kept.text()], [true, 'again'])
  assert.equal((await get(at('/moved'), { redirect: 'manual' })).status, 302)
  right('redirects')

  const before = await aborted()
  const controller = new AbortController()
  const endless = await get(at('/endless'), { signal: controller.signal })
  const reader = endless.body!.getReader()
  assert.ok((await reader.read()).value!.length > 0)
  controller.abort(new Error('enough'))
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  }, /enough/)
  const unread = await get(at('/endless'))
  await unread.body!.cancel()
  while ((await aborted()) < before + 2) await sleep(5)
  await assert.rejects(get(at('/silent'), { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
  right('aborts reach the service')

  const slow = await get(at('/endless'))
  const chunks = slow.body!.getReader()
  for (let read = 0; read < 3_000_000; ) read += (await chunks.read()).value!.length
  await sleep(50)
  await chunks.cancel()
  right('a slow reader')

  const codeOf = async (url: string) => {
    const text = get(url).then((response) => response.text())
    const error = await text.then(
      () => assert.fail(`${url} responds`),
      (error: Error) => error
    )
    return (error.cause as { code?: string }).code
  }
  assert.equal(await codeOf(at('/', 'gone')), 'JW_UPSTREAM_REFUSED')
  assert.equal(await codeOf(at('/cut')), 'JW_UPSTREAM_RESET')
  right('errors with their code')
  const fixed = await get(at('/', 'fixed'))
  assert.deepEqual([fixed.status, fixed.headers.get('x-fixed'), await fixed.text()], [200, 'yes', 'instead'])
  right('a fallback')
}

const mesh = createMesh(settings)
await mesh.ready()
await exchanges('mesh.fetch', mesh.fetch)
await exchanges('dispatcher', (url, init) => fetch(url, { ...init, dispatcher: mesh } as object))

const keys = ['undici.globalDispatcher.1', 'undici.globalDispatcher.2'].map(Symbol.for)
const dispatchers = () => keys.map((key) => Reflect.get(globalThis, key))
const previous = dispatchers()
const uninstall = installFetch(mesh)
await exchanges('installed', fetch)

const other = createMesh({ services: {} })
assert.throws(() => installFetch(other), /a mesh is installed already/)
assert.throws(() => installFetch(mesh), /a mesh is installed already/)
await other.close()
done.push('a second installation is refused')

assert.equal(await (await fetch(`${OTHER}/`)).text(), 'another host')
assert.equal(await (await fetch('http://orders.mesh/away')).text(), 'another host')
done.push('other hosts, also by a redirect')

const services = [
  'http://orders.mesh/json',
  '//orders.mesh/json',
  'http://ORDERS.mesh:8080/',
  'http://orders\uff0emesh/json'
]
for (const [index, to] of services.entries()) {
  for (const [status, init] of [
    [302, {}],
    [307, { method: 'POST', body: 'x' }],
    [302, { redirect: 'manual' }]
  ] as const) {
    const from = `${OTHER}/to?${status}&${encodeURIComponent(to)}`
    const { cause } = await fetch(from, init as RequestInit).then(
      () => assert.fail(`${from} responds`),
      (error: Error) => error as { cause?: { code?: string; message?: string } }
    )
    assert.equal(cause?.code, 'JW_REDIRECT_REFUSED', `${index}: ${status}`)
    assert.match(cause.message!, /^http:\/\/127\.0\.0\.1:\d+ redirects to the mesh, http:\/\/orders\.mesh/)
  }
}
await assert.rejects(
  fetch(`http://orders.mesh/away?${encodeURIComponent('http://orders.mesh/json')}`),
  (error: Error) => {
    return (error.cause as { code?: string }).code === 'JW_REDIRECT_REFUSED'
  }
)
assert.equal(await (await fetch(`${OTHER}/to?302&${encodeURIComponent(`${OTHER}/`)}`)).text(), 'another host')
done.push('no redirect of another host leads into the mesh')

const socket = new WebSocket('ws://chat.mesh/ws')
socket.binaryType = 'arraybuffer'
await new Promise((resolve, reject) => {
  socket.onopen = resolve
  socket.onerror = ({ error }: Event & { error?: unknown }) => reject(error)
})
const echoed = new Promise<ArrayBuffer>((resolve) => {
  socket.onmessage = ({ data }) => resolve(data as ArrayBuffer)
})
socket.send(bytes.subarray(0, 60_000))
assert.equal(digest(new Uint8Array(await echoed)), digest(bytes.subarray(0, 60_000)))
const closed = new Promise((resolve) => {
  socket.onclose = resolve
})
socket.close(1000)
await closed
done.push('a WebSocket')

const messageOf = (url: string) =>
  fetch(url).then(
    () => assert.fail(`${url} responds`),
    ({ cause }: Error) => (cause as Error).message
  )
assert.equal(await messageOf('http://odrers.mesh/'), 'odrers: no such service; did you mean "orders"?')
assert.match(
  await messageOf('https://orders.mesh/'),
  /; call it by http:\/\/orders\.mesh \(TLS to its instances is a setting/
)
assert.match(await messageOf('http://orders.mesh:8080/'), /; call it by http:\/\/orders\.mesh \(without :8080\)/)
done.push('wrong names')

// Packages bring undicis of their own, which use the same properties.
for (const name of (process.env.UNDICIS ?? '').split(',').filter((name) => name !== '')) {
  const undici = (await import(name)) as { fetch: typeof fetch; request: typeof import('undici').request }
  assert.equal(await (await undici.fetch('http://orders.mesh/echo', { method: 'POST', body: 'x' })).text(), 'x', name)
  assert.equal(await (await undici.request('http://orders.mesh/echo', { method: 'POST', body: 'y' })).body.text(), 'y')
  assert.equal(await (await undici.fetch(`${OTHER}/`)).text(), 'another host')
  done.push('an undici of its own')
}

uninstall()
uninstall()
// Early versions of Node 24 have only the first of the properties; the other one then has its dispatcher.
for (const [index, dispatcher] of dispatchers().entries()) {
  assert.ok(dispatcher === (previous[index] ?? previous[0]), 'the dispatchers before')
}
assert.match(await messageOf('http://orders.mesh/'), /ENOTFOUND|EAI_AGAIN/)
installFetch(mesh)()
done.push('uninstalled')

const late = installFetch(mesh)
await mesh.close()
assert.equal(await messageOf('http://orders.mesh/'), 'orders: the mesh is closed')
assert.equal(await (await fetch(`${OTHER}/`)).text(), 'another host')
late()
done.push('a closed mesh')
console.log(done.join('\n'))
