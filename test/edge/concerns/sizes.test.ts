// slow: takes about 10 s
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { configOf, gatewayBefore, startService } from '../../helpers/gateway.ts'

for (const protocol of protocols) {
  t.test(`sizes over ${protocol}: what fits arrives whole, and a byte more is refused`, async (t) => {
    const service = await startService((request, response) => {
      let size = 0
      request
        .on('error', () => {})
        .on('data', (chunk: Buffer) => {
          size += chunk.length
        })
      request.once('end', () => response.end(`${size} ${request.url!.length}`))
    })
    t.teardown(service.close)
    const gateway = await gatewayBefore(t, service.url, {
      listen: { ...listenFor(t, protocol), limits: { url: '1kb', headers: '4kb' } },
      edge: { bodyLimit: '1kb' },
      routes: [
        { name: 'all', match: { path: '/' }, service: 'any' },
        { name: 'reply', match: { path: '/reply' }, service: 'any', edge: { responsePath: 'reply' } },
        { name: 'proxy', match: { path: '/proxy' }, service: 'any', via: 'http-proxy' },
        { name: 'none', match: { path: '/none' }, service: 'any', edge: { bodyLimit: '0b' } },
        { name: 'any', match: { path: '/any' }, service: 'any', edge: { bodyLimit: false } }
      ]
    })
    const { ask, begin } = anyClient(t, protocol, gateway.port)
    const streamed = async (path: string, ...chunks: string[]) => {
      const call = begin(path, { method: 'POST', streams: true })
      for (const chunk of chunks) call.send(chunk)
      call.end()
      return call.response
    }
    for (const path of ['/', '/reply', '/proxy']) {
      const whole = await ask(path, { method: 'POST', body: 'x'.repeat(1024) })
      t.match([whole.status, whole.body.toString()], [200, /^1024 /], path)
      t.equal((await ask(path, { method: 'POST', body: 'x'.repeat(1025) })).status, 413, path)
      const chunked = await streamed(path, 'x'.repeat(1000), 'x'.repeat(24))
      t.match([chunked.status, chunked.body.toString()], [200, /^1024 /], `${path} in chunks`)
      const more = await streamed(path, 'x'.repeat(1000), 'x'.repeat(24), 'x')
      t.equal(more.status, 413, `${path} in chunks`)
      t.equal(JSON.parse(more.body.toString()).code, 'JW_BODY_TOO_LARGE', path)
    }
    t.equal((await ask('/none', { method: 'POST', body: '' })).status, 200)
    t.equal((await ask('/none', { method: 'POST', body: 'x' })).status, 413)
    t.equal((await streamed('/none', 'x')).status, 413)
    t.equal((await ask('/any', { method: 'POST', body: 'x'.repeat(2 ** 20) })).status, 200)

    const url = `/?${'u'.repeat(1022)}`
    t.match((await ask(url)).body.toString(), /^0 1024$/)
    const longUrl = await ask(`${url}u`)
    t.match([longUrl.status, JSON.parse(longUrl.body.toString()).code], [414, 'JW_URL_TOO_LONG'])

    t.equal((await ask('/', { headers: { 'x-large': 'h'.repeat(3500) } })).status, 200)
    t.equal((await ask('/', { headers: { 'x-large': 'h'.repeat(4096) } })).status, 431)
    const many = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`x-${i}`, 'h'.repeat(20)]))
    t.equal((await ask('/', { headers: many })).status, 431, 'many small fields')
  })
}

t.test('names of other gateways get advice', async (t) => {
  const faults = (more: object) => () =>
    configOf({
      services: { any: { instances: ['http://127.0.0.1:1'] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    })
  for (const name of ['client_max_body_size', 'allowed_payload_size', 'maxRequestBodyBytes', 'max_request_bytes']) {
    t.throws(faults({ edge: { [name]: '1mb' } }), { message: /write edge\.bodyLimit/ }, name)
    t.throws(faults({ listen: { limits: { [name]: '1mb' } } }), { message: /write edge\.bodyLimit/ }, name)
  }
  for (const name of [
    'large_client_header_buffers',
    'client_header_buffer_size',
    'max_request_headers_kb',
    'maxHeaderBytes'
  ]) {
    t.throws(faults({ listen: { [name]: '8kb' } }), { message: /write listen\.limits\.headers/ }, name)
  }
  for (const place of [{ bodyLimit: '1mb' }, { body: '1mb' }, { upload: '1mb' }]) {
    t.throws(faults({ listen: { limits: place } }), { message: /edge\.bodyLimit/ }, JSON.stringify(place))
  }
})
