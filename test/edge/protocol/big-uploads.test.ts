// slow: takes about 8 s
/** Every byte of large request bodies, whose memory is freed after sending. */
import type { Hash } from 'node:crypto'
import { createCipheriv, createHash } from 'node:crypto'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** More than the kernel buffers for a service that does not read. */
const size = 16 * 1024 * 1024 + 17
/** No two parts are alike. */
const body = createCipheriv('aes-128-ctr', 'a key of 16 byte', 'and a vector too').update(Buffer.alloc(size))
const digest = createHash('sha256').update(body).digest('hex')

const methods = ['POST', 'PUT', 'PATCH', 'QUERY']

interface Wanted {
  slow?: boolean
  config?: object
  listen?: object
  before?: (server: FastifyInstance) => void
}

/** A gateway and a service, fast or slow, that responds with the body's digest; `copies`: those of its shadow. */
async function serving(t: Test, { slow = false, config = {}, listen = {}, before }: Wanted = {}) {
  const copies: string[] = []
  const service = await startService(async (request, response) => {
    const hash: Hash = createHash('sha256')
    if (slow) await sleep(200)
    for await (const chunk of request) {
      hash.update(chunk as Buffer)
      if (slow) await sleep(1)
    }
    const got = hash.digest('hex')
    if (request.headers.host?.includes('-shadow')) copies.push(got)
    response.end(got)
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen,
      edge: { bodyLimit: false },
      services: { any: { instances: [service.url] }, shadow: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/', methods }, service: 'any' }],
      ...config
    },
    before && { before }
  )
  t.teardown(gateway.close)
  return { port: gateway.port, copies }
}

/** Chunks of odd sizes, as fast as they are read. */
async function send(request: NodeJS.WritableStream): Promise<void> {
  for (let at = 0; at < size; at += 100_003) {
    if (request.write(body.subarray(at, at + 100_003))) continue
    await new Promise((resolve) => request.once('drain', resolve))
  }
  request.end()
}

async function upload(port: number, method: string, sized: boolean, client: typeof http | typeof https = http) {
  const headers = sized ? { 'content-length': size } : {}
  const request = client.request({ port, host: '127.0.0.1', method, headers, rejectUnauthorized: false } as object)
  const responded = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once('response', resolve).once('error', reject)
  })
  await send(request)
  let text = ''
  for await (const chunk of await responded) text += String(chunk)
  return text
}

// Replayable uploads (PUT) and others (POST), each with a length and chunked.
const kinds = [['POST', true], ['POST', false], ['PUT', true], ['PUT', false]] as const // biome-ignore format: short

t.test('concurrent uploads reach fast and slow services unchanged', async (t) => {
  for (const slow of [false, true]) {
    for (const config of [{}, { edge: { bodyLimit: '1gb' } }]) {
      const { port } = await serving(t, { slow, config })
      const got = await Promise.all(kinds.map(([method, sized]) => upload(port, method, sized)))
      t.strictSame(got, kinds.map(() => digest), `${slow ? 'slow' : 'fast'}, ${JSON.stringify(config)}`) // biome-ignore format: short
    }
  }
})

t.test('uploads over TLS and HTTP/2 are unchanged', async (t) => {
  const { port } = await serving(t, { listen: { tls: selfSigned(t), http2: true } })
  for (const [method, sized] of kinds) t.equal(await upload(port, method, sized, https), digest, `${method} ${sized}`)
  const client = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => client.destroy())
  const got = await Promise.all(
    kinds.map(async ([method]) => {
      const stream = client.request({ ':path': '/', ':method': method })
      await send(stream)
      let text = ''
      for await (const chunk of stream) text += String(chunk)
      return text
    })
  )
  t.strictSame(got, kinds.map(() => digest)) // biome-ignore format: short
})

t.test('a mirror and a plugin that keep chunks have them unchanged', async (t) => {
  const mesh = { mirror: { service: 'shadow', maxBody: '32mb' } }
  const mirrored = await serving(t, { config: { mesh } })
  for (const [method, sized] of kinds) t.equal(await upload(mirrored.port, method, sized), digest)
  while (mirrored.copies.length < kinds.length) await sleep(10)
  t.strictSame(mirrored.copies, kinds.map(() => digest), 'the copies too') // biome-ignore format: short

  // A body that a plugin puts in place of the client's belongs to the plugin.
  const prefix = Buffer.from(new Uint8Array(8192).fill(120).buffer)
  const prefixed = createHash('sha256').update(prefix).update(body).digest('hex')
  const before = (server: FastifyInstance) =>
    void server.addHook('preParsing', async (request, _reply, payload) => {
      delete request.raw.headers['content-length']
      const through = new PassThrough()
      through.write(prefix)
      return payload.pipe(through)
    })
  const { port } = await serving(t, { config: { edge: { bodyLimit: '1gb' } }, before })
  for (let n = 0; n < 2; n++) t.equal(await upload(port, 'POST', false), prefixed)

  for (const config of [{}, { edge: { bodyLimit: '1gb' } }]) {
    const kept: Buffer[] = []
    let first: Buffer | undefined
    const before = (server: FastifyInstance) =>
      void server.addHook('preHandler', async ({ raw, method }) => {
        raw.once('resume', () => {
          if (method === 'QUERY') void Array.fromAsync(raw, (chunk: Buffer) => kept.push(chunk)).catch(() => {})
          else if (method === 'PATCH') raw.once('data', (chunk: Buffer) => (first = chunk))
          else raw.on('data', (chunk: Buffer) => kept.push(chunk))
        })
      })
    const watched = await serving(t, { config, before })
    for (const [method, sized] of kinds) {
      kept.length = 0
      t.equal(await upload(watched.port, method, sized), digest)
      const seen = createHash('sha256')
      for (const chunk of kept) seen.update(chunk)
      t.equal(seen.digest('hex'), digest, `bytes that the plugin read: ${method}, ${sized}`)
    }
    kept.length = 0
    await upload(watched.port, 'QUERY', false)
    t.ok(kept.length > 1)
    t.notOk(
      kept.some(({ buffer }) => (buffer as ArrayBuffer).detached),
      'chunks are not freed while they are iterated'
    )
    t.equal(await upload(watched.port, 'PATCH', false), digest)
    t.ok(
      first!.length > 0 && body.subarray(0, first!.length).equals(first!),
      'chunks are not freed if only the first is read'
    )
  }
})
