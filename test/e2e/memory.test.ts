// Bodies are streamed: the gateway never buffers them, at any size and with a slow peer on either side.
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { join, resolve } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startService } from '../helpers/gateway.ts'
import { start } from '../helpers/processes.ts'

const mb = 1024 * 1024
/** Megabytes of a body. 1024 for a full measurement; less shows the same, since buffers are far smaller. */
const size = Number(process.env.JINGWEI_MEMORY_MB ?? 256) * mb
const allowed = 64 * mb
const chunk = Buffer.alloc(64 * 1024, 'x')

/** Yields a body in chunks of 64 kB, as fast as the reader accepts them, or with a pause every megabyte. */
async function* bytes(total: number, pauseMs: number) {
  for (let sent = 0; sent < total; sent += chunk.length) {
    yield chunk
    if (pauseMs > 0 && sent % mb === 0) await sleep(pauseMs)
  }
}

/** Reads a body; if slow, with a pause every megabyte. */
function drain(pauseMs: number, count: { bytes: number }): Writable {
  let next = mb
  return new Writable({
    write(data: Buffer, _encoding, done) {
      count.bytes += data.length
      if (pauseMs === 0 || count.bytes < next) return done()
      next += mb
      setTimeout(done, pauseMs)
    }
  })
}

/** Starts a gateway in its own process, and reads its resident memory from the kernel. */
async function gatewayBefore(folder: string, url: string) {
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    admin: false,
    edge: { bodyLimit: false, accessLog: false },
    services: { any: { instances: [url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  const file = join(folder, 'gateway.yaml')
  await writeFile(file, JSON.stringify(config))
  const running = await start({
    command: process.execPath,
    args: [resolve(import.meta.dirname, '../../app.ts'), '-c', file],
    // Node options for a measurement.
    env: { ...process.env, NODE_OPTIONS: process.env.JINGWEI_MEMORY_OPTIONS ?? '' },
    name: 'gateway',
    ready: /edge +http\S+/
  })
  const port = Number(new URL(/edge +(http\S+)/.exec(running.output())![1]!).port)
  const memory = async (name: 'VmRSS' | 'VmHWM') => {
    const status = await readFile(`/proc/${running.pid}/status`, 'utf8')
    return Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)![1]) * 1024
  }
  return {
    port,
    stop: running.stop,
    resident: () => memory('VmRSS'),
    peak: () => memory('VmHWM'),
    forgetPeak: () => writeFile(`/proc/${running.pid}/clear_refs`, '5')
  }
}

const inMb = (value: number) => (value / mb).toFixed(0)

t.setTimeout(600_000)

t.test(
  'memory is bounded with large bodies and slow peers',
  { skip: process.platform !== 'linux' && 'reads /proc' },
  async (t) => {
    const pauses = { reader: 0, writer: 0 }
    const received = { bytes: 0 }
    const service = await startService(async (request, response) => {
      if (request.method === 'POST') {
        await pipeline(request, drain(pauses.reader, received)).catch(() => {})
        response.end('ok')
      } else
        await pipeline(Readable.from(bytes(Number(request.url!.slice(1)), pauses.writer)), response).catch(() => {})
    })
    const gateway = await gatewayBefore(t.testdir(), service.url)
    t.teardown(async () => {
      await gateway.stop()
      await service.close()
    })
    const { port } = gateway
    const agent = new http.Agent({ keepAlive: true })
    t.teardown(() => agent.destroy())
    const ask = (method: string, path: string) => {
      const request = http.request({ port, host: '127.0.0.1', method, path, agent })
      const responded = new Promise<http.IncomingMessage>((resolve, reject) => {
        request.once('response', resolve).once('error', reject)
      })
      return { request, responded }
    }
    const download = async (pauseMs: number, length = size) => {
      const { request, responded } = ask('GET', `/${length}`)
      request.end()
      received.bytes = 0
      await pipeline(await responded, drain(pauseMs, received))
    }
    const upload = async (pauseMs: number, length = size) => {
      const { request, responded } = ask('POST', '/')
      received.bytes = 0
      await pipeline(Readable.from(bytes(length, pauseMs)), request)
      const response = await responded
      t.equal(response.statusCode, 200)
      response.resume()
    }

    for (let n = 0; n < 200; n++) await download(0, chunk.length)
    const idle = await gateway.resident()
    t.comment(`idle: ${inMb(idle)} MB; bodies of ${inMb(size)} MB`)

    const cases: [what: string, run: () => Promise<void>][] = [
    ['a download, the client reads slowly', () => download(5)],
    ['a download, the service writes slowly', () => { pauses.writer = 5; return download(0) }],
    ['a download, both as fast as they can', () => { pauses.writer = 0; return download(0) }],
    ['an upload, the service reads slowly', () => { pauses.reader = 5; return upload(0) }],
    ['an upload, the client writes slowly', () => { pauses.reader = 0; return upload(5) }],
    ['an upload, both as fast as they can', () => upload(0)]
  ] // biome-ignore format: a table
    for (const [what, run] of cases) {
      await gateway.forgetPeak()
      await run()
      t.equal(received.bytes, size, what)
      const over = (await gateway.peak()) - idle
      t.comment(`${what}: ${inMb(over)} MB over idle`)
      t.ok(over <= allowed, `${what}: at most ${inMb(allowed)} MB over idle, not ${inMb(over)}`)
    }
  }
)
