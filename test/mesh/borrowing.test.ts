/** Chunks whose memory is used again reach only handlers that say they are done with them. */
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { ForwardingHandler } from '../../plugins/mesh/handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler, DispatchOptions, Interceptor } from '../../plugins/mesh/types.ts'
import { meshOf, retryOptions, service } from './helpers/mesh.ts'
import { upstream } from './helpers/servers.ts'

const body = randomBytes(4 * 1024 * 1024)
const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as DispatchOptions

/** Copies what it gets, so that it may borrow it. */
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
    // Where it pauses, the chunk is its own until it resumes.
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

/** Keeps all chunks, as they are, until the end. */
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

async function answer(t: Parameters<typeof meshOf>[0], interceptor?: Interceptor): Promise<Borrower> {
  const { url } = await upstream(t, 'a', (_request, response) => void response.end(body))
  const mesh = meshOf(t, [service('orders', [url], { retry: retryOptions })])
  if (interceptor !== undefined) mesh.use(interceptor, { per: 'attempt', name: 'keeper' })
  const borrower = new Borrower()
  mesh.dispatch(get, borrower)
  await borrower.done.promise
  t.ok(Buffer.concat(borrower.parts).equals(body), 'whole')
  return borrower
}

t.test('one that borrows is spared the copies', async (t) => {
  t.equal((await answer(t)).memory.size, 1)
})

for (const [who, interceptor] of Object.entries(keepers)) {
  t.test(`beside one that keeps chunks, each has memory of its own: ${who}`, async (t) => {
    kept.length = 0
    await answer(t, interceptor)
    t.ok(Buffer.concat(kept).equals(body))
  })
}
