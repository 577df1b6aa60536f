// slow: takes about 2 s
/** Connections between two requests. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import type { ConnectionOptions } from '../../../plugins/mesh/http/lifetime.ts'
import { usualConnection } from '../../../plugins/mesh/http/lifetime.ts'
import { eventually } from '../../helpers/eventually.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { iterations, numbered, poolTo, responseOf } from './support.ts'

const spoils: Record<string, (socket: Socket) => void> = {
  'an unsolicited response': (socket) => void socket.write(responseOf('stray')),
  'an unasked timeout': (socket) => void socket.end('HTTP/1.1 408 x\r\nConnection: close\r\n\r\n'),
  'an end': (socket) => void socket.end(),
  'a reset': (socket) => void socket.resetAndDestroy(),
  'a line end': (socket) => void socket.write('\r\n')
}

for (const [name, spoil] of Object.entries(spoils)) {
  t.test(`${name} on an idle connection reaches no later request`, async (t) => {
    for (const together of [false, true]) {
      let old!: Socket
      const { url } = await raw(t, (socket, count) => {
        if (count === 1) old = socket
        socket.on('data', () => socket.write(responseOf(String(count))))
      })
      const { ask } = poolTo(t, url)
      await ask().done
      await iterations(3)
      spoil(old)
      // The service's bytes have arrived and are unread when the request comes.
      if (together) for (const end = performance.now() + 20; performance.now() < end; );
      else await once(old, 'close')
      const next = ask()
      await next.done
      t.strictSame([next.events, next.body], [['start', '200', 'data', 'end'], '2'])
    }
  })
}

t.test('bytes after a response reach no later request', async (t) => {
  for (const more of ['x', responseOf('stray'), 'HTTP/1.1 100 Continue\r\n\r\n']) {
    const { url } = await raw(t, (socket, count) => {
      socket.on('data', () => socket.write(responseOf(String(count)) + (count === 1 ? more : '')))
    })
    const { ask } = poolTo(t, url)
    for (const number of ['1', '2', '2']) {
      const heard = ask()
      await heard.done
      t.strictSame([heard.events, heard.body], [['start', '200', 'data', 'end'], number])
    }
  }
})

t.test('connections that are not reused', async (t) => {
  for (const [name, bytes, opts] of [
    ['closed by the service', responseOf('a', 'Connection: close'), {}],
    ['closed by the request', responseOf('a'), { headers: { connection: 'close' } }],
    ['of HTTP/1.0', responseOf('a').replace('1.1', '1.0'), {}],
    ['kept for no time', responseOf('a', 'Keep-Alive: timeout=1'), {}],
    ['not upgraded although requested', responseOf('a'), { upgrade: 'websocket' }],
    ['a GET with a body', responseOf('a'), { body: 'x' }]
  ] as [string, string, Partial<DispatchOptions>][]) {
    const { url, sockets, count } = await raw(t, (socket) => socket.on('data', () => socket.write(bytes)))
    const { ask } = poolTo(t, url)
    await ask(opts).done
    await eventually(() => sockets.size === 0, `the connection to close: ${name}`)
    const next = ask(opts)
    await next.done
    t.strictSame([next.body, count()], ['a', 2], name)
  }
})

t.test('idle, maxAge and maxRequests of a connection', async (t) => {
  const limits = (more: Partial<ConnectionOptions>) => ({ connection: { ...usualConnection, ...more } })
  const impatient = await numbered(t)
  const idle = poolTo(t, impatient.url, limits({ idleMs: 100 }))
  await idle.ask().done
  t.equal(impatient.sockets.size, 1)
  await eventually(() => impatient.sockets.size === 0, 'the end of the idle connection')

  const never = poolTo(t, (await numbered(t)).url, limits({ idleMs: 0 }))
  for (const body of ['1/', '2/', '3/']) {
    const heard = never.ask()
    await heard.done
    t.equal(heard.body, body)
  }

  const counted = poolTo(t, (await numbered(t)).url, limits({ maxRequests: 2 }))
  const bodies: string[] = []
  for (let i = 0; i < 5; i++) {
    const heard = counted.ask()
    await heard.done
    bodies.push(heard.body)
  }
  t.strictSame(bodies, ['1/', '1/', '2/', '2/', '3/'])

  const aging = await numbered(t)
  const old = poolTo(t, aging.url, limits({ idleMs: 60_000, maxAgeMs: 300 }))
  const held = old.ask({ path: '/held' })
  await eventually(() => aging.held.length === 1, 'the request at the service')
  await sleep(350)
  aging.held[0]!()
  await held.done
  t.equal(held.body, '1/held', 'a request in flight is not aborted')
  const next = old.ask()
  await next.done
  t.equal(next.body, '2/', 'the next request uses another connection')
  await eventually(() => aging.sockets.size === 0, 'the connection to close after maxAge')
})

t.test('an idle connection is closed a second before the service closes it', async (t) => {
  const { url, sockets } = await numbered(t, 'Keep-Alive: timeout=2')
  const { ask } = poolTo(t, url)
  const begun = performance.now()
  for (let i = 0; i < 3; i++) {
    await ask().done
    await sleep(100)
  }
  t.equal(sockets.size, 1)
  await eventually(() => sockets.size === 0, 'the end', 1800)
  t.ok(performance.now() - begun > 1100)
})
