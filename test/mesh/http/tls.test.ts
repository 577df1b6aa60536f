/** Requests over TLS, which is read as a stream. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Heard, iterations, poolTo } from './support.ts'

const large = Buffer.alloc(3_000_000, 'abcdefghijklmnopqrstuvwxyz')
const digest = (bytes: Buffer) => createHash('sha1').update(bytes).digest('hex')

async function secure(t: Test) {
  const ca = authority(folderFor(t), 'root')
  const { cert, key } = ca.issue('service', { san: 'IP:127.0.0.1' })
  const server = createServer({ cert, key }, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    response.setHeader('x-got', digest(Buffer.concat(chunks)))
    if (request.url === '/to-the-end') response.setHeader('connection', 'close').removeHeader('content-length')
    response.end(large)
  })
  let connections = 0
  server.on('secureConnection', () => connections++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { ca: ca.cert, url, server, count: () => connections }
}

t.test('requests over TLS', async (t) => {
  const { ca, url, server, count } = await secure(t)
  const { ask, pool } = poolTo(t, url, { ca })
  const allClosed = () => {
    let left = -1
    const look = () => server.getConnections((_error, number) => (left = number)) // biome-ignore format: short
    return eventually(() => look() && left === 0, 'the end of all connections')
  }

  await t.test('large bodies both ways, in sequence', async (t) => {
    const stream = () =>
      Readable.from(Array.from({ length: 30 }, (_, i) => large.subarray(i * 100_000, (i + 1) * 100_000)))
    for (const body of [large, stream()]) {
      const heard = ask({ method: 'PUT', body })
      await heard.done
      t.equal(heard.headers['x-got'], digest(large))
      t.ok(Buffer.concat(heard.chunks).equals(large))
    }
    t.equal(count(), 1)
  })

  await t.test('a slow reader', async (t) => {
    const slow = (controller: { pause(): void; resume(): void }) => {
      controller.pause()
      setImmediate(() => controller.resume())
    }
    for (const path of ['/', '/to-the-end']) {
      const heard = ask({ path }, new Heard({ head: slow, data: slow }))
      await heard.done
      t.ok(Buffer.concat(heard.chunks).equals(large))
      t.equal(heard.events.at(-1), 'end')
    }
    t.equal(count(), 1)
  })

  await t.test('an abort, and a connection that the service closes', async (t) => {
    const heard = ask({}, new Heard({ data: (controller) => controller.abort(new Error('enough')) }))
    await heard.done
    t.strictSame(heard.events, ['start', '200', 'data', 'error'])
    await ask().done
    server.closeAllConnections()
    await allClosed()
    await iterations(3)
    const next = ask()
    await next.done
    t.equal(next.events.at(-1), 'end')
  })

  await pool.close()
  await allClosed()
})

t.test('a peer without a trusted certificate', async (t) => {
  const { url } = await secure(t)
  const heard = poolTo(t, url).ask()
  await heard.done
  t.strictSame([heard.events, heard.error?.code], [['error'], 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'])
})
