/** Slow readers and silent senders. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { Heard, numbered, poolTo, responseOf } from './support.ts'

t.test('the body timeout applies to a stalled body, and not to a paused one', async (t) => {
  const { url } = await raw(t, (socket) => {
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'))
    socket.on('data', () => {})
  })
  const { ask } = poolTo(t, url)
  const silence = ask({ bodyTimeout: 50 })
  await silence.done
  t.strictSame([silence.events, silence.error?.code], [['start', '200', 'data', 'error'], 'JW_UPSTREAM_TIMEOUT'])
  const paused = ask({ bodyTimeout: 50 }, new Heard({ head: (controller) => controller.pause() }))
  await eventually(() => paused.status === 200, 'the header section')
  await sleep(200)
  t.strictSame(paused.events, ['start', '200'])
  paused.controller!.resume()
  await paused.done
  t.strictSame([paused.events, paused.error?.code], [['start', '200', 'data', 'error'], 'JW_UPSTREAM_TIMEOUT'])
})

t.test('a paused handler holds the service back', async (t) => {
  let written = 0
  const chunk = Buffer.alloc(64 * 1024, 'x')
  const total = 500 * chunk.length
  const { url } = await raw(t, (socket) => {
    const write = () => {
      while (written < total && socket.write(chunk)) written += chunk.length
      if (written < total) written += chunk.length
    }
    socket.once('data', () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`)
      write()
      socket.on('drain', () => written < total && write())
    })
  })
  const { ask } = poolTo(t, url)
  const heard = ask({}, new Heard({ data: (controller) => controller.pause() }))
  let before = -1
  await eventually(() => {
    const still = written === before && heard.chunks.length > 0
    before = written
    return still
  }, 'the pause')
  t.ok(written < total, String(written))
  heard.on.data = (controller) => {
    controller.pause()
    setImmediate(() => controller.resume())
  }
  heard.controller!.resume()
  await heard.done
  t.equal(heard.body.length, total)
})

t.test('a pause at the end does not hold up the next response on the connection', async (t) => {
  const { url, count } = await numbered(t)
  const { ask } = poolTo(t, url)
  const pause = (controller: { pause(): void }) => controller.pause()
  const first = ask({ path: '/first' }, new Heard({ data: pause, end: pause }))
  await eventually(() => first.body !== '', 'the body of the first response')
  first.controller!.resume()
  await first.done
  const second = ask({ path: '/second' })
  await second.done
  t.strictSame([second.body, count()], ['1/second', 1])
})

t.test('a handler that pauses before the response gets the header section when it resumes, or before', async (t) => {
  const { url } = await raw(t, (socket) => {
    socket.once('data', async () => {
      for (const part of ['HTTP/1.1 200 OK\r\nConte', 'nt-Length: 2\r\n', '\r\nh', 'i']) {
        socket.write(part)
        await sleep(10)
      }
    })
  })
  const { ask } = poolTo(t, url)
  const heard = ask({}, new Heard({ start: (controller) => controller.pause() }))
  await eventually(() => heard.status === 200, 'the header section')
  t.strictSame(heard.events, ['start', '200'])
  heard.controller!.resume()
  await heard.done
  t.equal(heard.body, 'hi')
})

t.test('a body delimited by the end of the connection, with a slow reader', async (t) => {
  const { url } = await raw(t, (socket) => {
    socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\n\r\n${'x'.repeat(300_000)}`))
  })
  const { ask } = poolTo(t, url)
  const slow = (controller: { pause(): void; resume(): void }) => {
    controller.pause()
    setTimeout(() => controller.resume(), 5)
  }
  const heard = ask({}, new Heard({ head: slow, data: slow }))
  await heard.done
  t.strictSame([heard.events, heard.body.length], [['start', '200', 'data', 'end'], 300_000])
})

t.test('chunks from the shared buffer are copied', async (t) => {
  const { url } = await raw(t, (socket, count) => {
    const letter = String.fromCharCode(64 + count)
    socket.once('data', () => socket.write(responseOf(letter.repeat(200_000))))
  })
  const { ask } = poolTo(t, url)
  const all = Array.from({ length: 8 }, () => ask())
  await Promise.all(all.map(({ done }) => done))
  t.strictSame(all.map(({ body }) => body === body[0]!.repeat(200_000)), all.map(() => true)) // biome-ignore format: short
  t.equal(new Set(all.map(({ body }) => body[0])).size, 8)
})
