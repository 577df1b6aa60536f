// slow: takes about 25 s
/** Bodies of many sizes and kinds through all concerns that read or change bodies, byte by byte, in both directions. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import {
  brotliCompressSync,
  brotliDecompressSync,
  deflateSync,
  gunzipSync,
  gzipSync,
  zstdCompressSync,
  zstdDecompressSync
} from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { startGateway, startService } from '../../helpers/gateway.ts'

const shaOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Bytes that are the same in each run and cannot be compressed. */
function noise(size: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(size / 64) }, (_, at) => createHash('sha512').update(`${at}`).digest())
  return Buffer.concat(blocks).subarray(0, size)
}

/** JSON of exactly so many bytes. */
const json = (size: number): Buffer => Buffer.from(JSON.stringify('é'.padEnd(size - 3, 'ab ')))

const sizes = [0, 1, 1023, 1024, 16_385, 65_536, 300_000]
const kinds: Record<string, { type: string; make: (size: number) => Buffer }> = {
  json: { type: 'application/json', make: (size) => (size < 5 ? Buffer.from('12345'.slice(0, size)) : json(size)) },
  text: { type: 'text/plain; charset=utf-8', make: (size) => Buffer.alloc(size, 'jingwei ') },
  noise: { type: 'text/plain', make: noise },
  image: { type: 'image/png', make: noise }
}

const decode: Record<string, (bytes: Buffer) => Buffer> = {
  gzip: (bytes) => gunzipSync(bytes),
  br: (bytes) => brotliDecompressSync(bytes),
  zstd: (bytes) => zstdDecompressSync(bytes)
}
const encode: Record<string, (bytes: Buffer) => Buffer> = {
  gzip: (bytes) => gzipSync(bytes),
  br: (bytes) => brotliCompressSync(bytes),
  zstd: (bytes) => zstdCompressSync(bytes),
  deflate: (bytes) => deflateSync(bytes),
  'gzip, br': (bytes) => brotliCompressSync(gzipSync(bytes))
}

const document = {
  openapi: '3.1.0',
  paths: {
    '/{kind}/{size}/{framing}': {
      get: {
        parameters: ['kind', 'size', 'framing'].map((name) => ({ in: 'path', name, schema: { type: 'string' } })),
        responses: {
          200: {
            content: { 'application/json': { schema: { type: ['string', 'integer'] } }, 'text/*': {}, 'image/*': {} }
          },
          503: { content: { 'text/*': {} } }
        }
      }
    },
    '/echo': {
      post: {
        requestBody: { content: { 'application/json': { schema: { type: ['string', 'integer'] } }, '*/*': {} } },
        responses: { 200: { content: { 'application/json': { schema: { type: 'object' } } } } }
      }
    }
  }
}

const openapi = join(t.testdir({ 'api.json': JSON.stringify(document) }), 'api.json')

async function start(t: Test, protocol: Protocol) {
  let calls = 0
  const service = await startService((request, response) => {
    calls++
    const [, kind = '', size = '', framing = ''] = request.url!.split('/')
    if (kind === 'echo') {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const bytes = Buffer.concat(chunks)
        const { 'content-encoding': coding = null, 'x-added': added } = request.headers
        response.setHeader('content-type', 'application/json')
        response.end(JSON.stringify({ size: bytes.length, sha: shaOf(bytes), coding, added }))
      })
      return
    }
    const { type, make } = kinds[kind]!
    const body = make(Number(size))
    const status = framing === 'failed' ? 503 : 200
    const known = framing === 'chunked' ? {} : { 'content-length': body.length }
    const shared = framing === 'kept' ? { 'cache-control': 'public, max-age=600' } : {}
    response.writeHead(status, { 'content-type': type, etag: `"${kind}${size}"`, ...known, ...shared })
    if (framing !== 'chunked' || body.length === 0) {
      response.end(body)
      return
    }
    const middle = Math.ceil(body.length / 3)
    response.write(body.subarray(0, middle))
    setImmediate(() => response.end(body.subarray(middle)))
  })
  t.teardown(service.close)
  const gateway = await startGateway({
    listen: listenFor(t, protocol),
    services: { any: { instances: [service.url] } },
    edge: {
      compression: {},
      decompression: {},
      validation: { openapi, responses: 'enforce', maxResponse: '2mb' },
      headers: { request: { set: { 'x-added': 'yes' } }, response: { set: { 'x-passed': '1' } } },
      errorPages: { pages: { 404: { text: 'no such page' } } },
      cache: {}
    },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  t.teardown(gateway.close)
  return { ...anyClient(t, protocol, gateway.port), calls: () => calls }
}

for (const protocol of protocols) {
  t.test(
    `over ${protocol}, clients get the bytes of the service, in any encoding, from the cache and not`,
    async (t) => {
      const { ask, calls } = await start(t, protocol)
      for (const [kind, { make }] of Object.entries(kinds)) {
        for (const size of sizes) {
          if (kind === 'json' && size === 0) continue
          const body = make(size)
          for (const framing of ['length', 'chunked', 'kept', 'kept']) {
            for (const encoding of ['gzip', 'br', 'zstd', 'identity']) {
              const what = `${kind} ${size} ${framing} ${encoding}`
              const path = `/${kind}/${size}/${framing}`
              const got = await ask(path, { headers: { 'accept-encoding': encoding } })
              const coding = got.headers['content-encoding'] as string | undefined
              const mayBeEncoded =
                kind !== 'image' && encoding !== 'identity' && (size >= 1024 || framing === 'chunked')
              if (!mayBeEncoded || size >= 1024) t.equal(coding, mayBeEncoded ? encoding : undefined, what)
              const plain = coding === undefined ? got.body : decode[coding]!(got.body)
              if (got.status !== 200 || !got.isWhole || !plain.equals(body)) t.fail(`${what}: ${got.status}`)
              t.equal(got.headers['x-passed'], '1')
              t.equal(got.headers.etag, `${coding === undefined ? '' : 'W/'}"${kind}${size}"`, what)
              if (coding === undefined && got.headers['content-length'] !== undefined) {
                t.equal(got.headers['content-length'], `${body.length}`, what)
              }
            }
          }
          const before = calls()
          const path = `/${kind}/${size}/kept`
          const head = await ask(path, { method: 'HEAD', headers: { 'accept-encoding': 'br' } })
          t.match(head, { status: 200, isWhole: true })
          t.equal(head.body.length, 0)
          const tag = `${head.headers['content-encoding'] === undefined ? '' : 'W/'}"${kind}${size}"`
          const same = await ask(path, { headers: { 'accept-encoding': 'br', 'if-none-match': tag } })
          t.match(same, { status: 304, isWhole: true, headers: { etag: tag } })
          t.equal(same.body.length, 0)
          if (size > 10) {
            const part = await ask(path, { headers: { 'accept-encoding': 'br', range: 'bytes=2-9' } })
            t.match(part, {
              status: 206,
              headers: { 'content-range': `bytes 2-9/${size}`, 'content-encoding': undefined }
            })
            t.ok(part.body.equals(body.subarray(2, 10)), path)
          }
          t.equal(calls(), before, `${path}: from the cache`)
        }
      }
      const failed = await ask('/text/5000/failed', { headers: { 'accept-encoding': 'gzip' } })
      t.match(failed, { status: 503, isWhole: true })
      t.ok(gunzipSync(failed.body).equals(kinds.text!.make(5000)))
      const missing = await ask('/none', { headers: { 'accept-encoding': 'gzip', accept: 'text/plain' } })
      t.match({ status: missing.status, body: missing.body.toString() }, { status: 404 })
    }
  )

  t.test(`over ${protocol}, the service gets the bytes of clients, in any encoding`, async (t) => {
    const { ask } = await start(t, protocol)
    for (const [kind, { type, make }] of Object.entries(kinds)) {
      for (const size of sizes) {
        if (size === 0) continue
        const body = make(size)
        for (const coding of [null, ...Object.keys(encode)]) {
          const headers = { 'content-type': type, ...(coding !== null && { 'content-encoding': coding }) }
          const sent = coding === null ? body : encode[coding]!(body)
          const got = await ask('/echo', { method: 'POST', body: sent, headers })
          const expected = { size, sha: shaOf(body), coding: null, added: 'yes' }
          t.strictSame([got.status, JSON.parse(got.body.toString())], [200, expected], `${kind} ${size} ${coding}`)
        }
      }
    }
  })
}
