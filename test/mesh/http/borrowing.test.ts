/** Chunks in reused memory reach only handlers that declare `borrows`. */
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import t from 'tap'
import { ForwardingHandler } from '../../../plugins/mesh/core/handlers/forwarding-handler.ts'
import type {
  DispatchController,
  DispatchHandler,
  DispatchOptions,
  Interceptor
} from '../../../plugins/mesh/core/types.ts'
import { meshOf, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

const body = randomBytes(4 * 1024 * 1024)
const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as DispatchOptions

/** Copies each chunk, so it may borrow it. */
class Borrower implements DispatchHandler {
  readonly borrows = Borrower.prototype.onResponseData
  readonly memory = new Set<ArrayBufferLike>()
  readonly parts: Buffer[] = []
  readonly done = Promise.withResolvers<void>()

  onRequestStart(): void {}
  onResponseStart(): void {}

  onResponseData(controller: DispatchController, chunk: Buffer): void {
    this.memory.add(chunk.buffer)
    if (this.parts.length % 5 > 0) {
      this.parts.push(Buffer.from(chunk))
      return
    }
    // A handler that pauses owns the chunk until it resumes.
    controller.pause()
    setTimeout(() => {
      this.parts.push(Buffer.from(chunk))
      controller.resume()
    }, 1)
  }

  onResponseEnd(): void {
    this.done.resolve()
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.done.reject(error)
  }
}

/** Keeps all chunks, without a copy, until the end. */
const kept: Buffer[] = []
const keep = (_controller: DispatchController, chunk: Buffer) => void kept.push(chunk)

class Keeper extends ForwardingHandler {
  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    keep(controller, chunk)
    super.onResponseData(controller, chunk)
  }
}

function derived(handler: DispatchHandler): DispatchHandler {
  return Object.create(new ForwardingHandler(handler), {
    onResponseData: {
      value(controller: DispatchController, chunk: Buffer) {
        keep(controller, chunk)
        handler.onResponseData?.(controller, chunk)
      }
    }
  }) as DispatchHandler
}

const keepers: Record<string, Interceptor> = {
  'a handler of ours': (dispatch) => (opts, handler) => dispatch(opts, new Keeper(handler)),
  'one derived from a handler of ours': (dispatch) => (opts, handler) => dispatch(opts, derived(handler))
}

async function receive(t: Parameters<typeof meshOf>[0], interceptor?: Interceptor): Promise<Borrower> {
  const { url } = await upstream(t, 'a', (_request, response) => void response.end(body))
  const mesh = meshOf(t, [service('orders', [url], { retry: retryOptions })])
  if (interceptor !== undefined) mesh.use(interceptor, { per: 'attempt', name: 'keeper' })
  const borrower = new Borrower()
  mesh.dispatch(get, borrower)
  await borrower.done.promise
  t.ok(Buffer.concat(borrower.parts).equals(body), 'whole')
  return borrower
}

t.test('a handler that borrows gets no copies', async (t) => {
  t.ok((await receive(t)).memory.size <= 2, 'all chunks are views into a small and a large buffer')
})

for (const [who, interceptor] of Object.entries(keepers)) {
  t.test(`beside a handler that keeps chunks, each chunk has memory of its own: ${who}`, async (t) => {
    kept.length = 0
    await receive(t, interceptor)
    t.ok(Buffer.concat(kept).equals(body))
  })
}

/** A body that transfers its chunks, as a client's body does. */
class Transferred {
  readonly transfers = true
  readonly chunks: Buffer[]

  constructor(chunks: Buffer[]) {
    this.chunks = chunks
  }

  async *[Symbol.asyncIterator]() {
    yield* this.chunks
  }
}

/** Chunks as Node reads them, each with an ArrayBuffer of its own. */
const own = (bytes: Uint8Array) => Buffer.from(new Uint8Array(bytes).buffer)
const isFreed = ({ buffer }: Buffer) => (buffer as ArrayBuffer).detached

async function upload(t: Parameters<typeof meshOf>[0], method: 'POST' | 'PUT', body: object, resets = 0) {
  const got: Buffer[] = []
  let requests = 0
  const { url } = await upstream(t, 'a', async (request, response) => {
    if (requests++ < resets) return void request.once('data', () => request.socket.resetAndDestroy())
    for await (const chunk of request) got.push(chunk as Buffer)
    response.end()
  })
  const mesh = meshOf(t, [service('orders', [url, url], { retry: { ...retryOptions, budget: 1 } })])
  const { statusCode } = await mesh.request({ ...get, method, body: body as never })
  t.equal(statusCode, 200)
  return Buffer.concat(got)
}

t.test('transferred request chunks are freed once sent, if they span their whole buffer', async (t) => {
  const part = own(randomBytes(30_000)).subarray(10_000)
  const chunks = [own(randomBytes(20_000)), part, own(randomBytes(100)), own(randomBytes(20_000))]
  const whole = Buffer.concat(chunks)
  t.ok((await upload(t, 'POST', new Transferred(chunks))).equals(whole))
  t.strictSame(chunks.map(isFreed), [true, false, true, true])
})

t.test('other chunks are not freed; replayable ones are once they cannot be sent again', async (t) => {
  const chunks = [own(randomBytes(20_000)), own(randomBytes(20_000))]
  const whole = Buffer.concat(chunks)
  t.ok((await upload(t, 'POST', Readable.from(chunks))).equals(whole))
  t.strictSame(chunks.map(isFreed), [false, false])
  t.ok((await upload(t, 'PUT', new Transferred(chunks), 1)).equals(whole), 'the second attempt sends the same body')
  t.strictSame(chunks.map(isFreed), [false, false], 'replayable chunks are kept')
  const large = Array.from({ length: 5 }, () => own(randomBytes(20_000)))
  const all = Buffer.concat(large)
  t.ok((await upload(t, 'PUT', new Transferred(large))).equals(all))
  t.equal(isFreed(large.at(-1)!), true, 'chunks beyond the limit are freed')
})
