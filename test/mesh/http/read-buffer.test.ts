/** Read buffers of connections: small while idle, large while a large body arrives, never one still in use. */
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { largeBytes, ReadBuffer, smallBytes } from '../../../plugins/mesh/http/read-buffer.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { poolTo } from './support.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

t.test('large only after a full small buffer with more bytes expected, and until few are left', async (t) => {
  const buffer = new ReadBuffer()
  const small = buffer.current
  t.equal(small.length, smallBytes)
  t.notOk(buffer.isToChange(smallBytes - 1))
  t.ok(buffer.isToChange(smallBytes))
  buffer.choose(smallBytes, false)
  t.equal(buffer.current, small, 'the small buffer is used while the rest fits')
  buffer.choose(smallBytes + 1, false)
  const large = buffer.current
  t.equal(large.length, largeBytes)
  buffer.choose(Number.POSITIVE_INFINITY, true)
  t.equal(buffer.current, large)
  buffer.choose(0, true)
  t.equal(buffer.current, small)

  const other = new ReadBuffer()
  other.choose(largeBytes, false)
  t.not(other.current, large, 'a paused request still uses the buffer')
  buffer.resumed()
  const third = new ReadBuffer()
  third.choose(largeBytes, false)
  t.equal(third.current, large, 'the buffer is free after resuming')
})

const body = randomBytes(1_500_000)
const hash = createHash('sha256').update(body).digest('hex')
const framings: Record<string, (body: Buffer) => Buffer[]> = {
  'Content-Length': (body) => [Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`), body],
  chunks: (body) => [
    Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'),
    ...[0, 500_000, 1_000_000].flatMap((at) => [
      Buffer.from(`${(500_000).toString(16)}\r\n`),
      body.subarray(at, at + 500_000),
      Buffer.from('\r\n')
    ]),
    Buffer.from('0\r\n\r\n')
  ]
}

/** Borrows each chunk; a slow handler pauses at each, and reads it only when it resumes. */
class Borrower implements DispatchHandler {
  readonly borrows = Borrower.prototype.onResponseData
  readonly done = Promise.withResolvers<string>()
  readonly #hash = createHash('sha256')
  readonly #slow: boolean

  constructor(slow: boolean) {
    this.#slow = slow
  }

  onRequestStart(): void {}
  onResponseStart(): void {}

  onResponseData(controller: DispatchController, chunk: Buffer): void {
    if (!this.#slow) {
      this.#hash.update(chunk)
      return
    }
    controller.pause()
    setTimeout(() => {
      this.#hash.update(chunk)
      controller.resume()
    }, 1)
  }

  onResponseEnd(): void {
    this.done.resolve(this.#hash.digest('hex'))
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.done.reject(error)
  }
}

for (const [name, framed] of Object.entries(framings)) {
  t.test(`100 connections that had a large body in ${name}: every byte, and 16 KB each when idle`, async (t) => {
    const bytes = Buffer.concat(framed(body))
    const { url, sockets } = await raw(t, (socket) => socket.on('data', () => void socket.write(bytes)))
    const connection = { idleMs: 60_000, maxAgeMs: 60_000, maxRequests: 100, maxHeaderSize: 16_384 }
    const { pool } = poolTo(t, url, { connections: 100, connection })
    collect()
    const before = process.memoryUsage().arrayBuffers
    const readers = Array.from({ length: 100 }, (_, i) => new Borrower(i % 2 === 0))
    for (const reader of readers) pool.dispatch({ path: '/', method: 'GET' } as DispatchOptions, reader)
    for (const reader of readers) t.equal(await reader.done.promise, hash)
    t.equal(sockets.size, 100)
    let held = Number.POSITIVE_INFINITY
    // Node frees the memory of sent chunks some time later.
    for (let i = 0; i < 50 && held > 100 * smallBytes + 17 * largeBytes; i++) {
      await turn()
      await sleep(20)
      collect()
      held = process.memoryUsage().arrayBuffers - before
    }
    t.ok(held <= 100 * smallBytes + 17 * largeBytes, `${held} bytes`)
  })
}
