/** Connections that switch to another protocol. */
import type { Duplex } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { iterations, poolTo, responseOf } from './support.ts'

async function upgrading(t: Test, more = '') {
  const service = await raw(t, (socket, count) => {
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString()
      if (/^upgrade: x\r$/m.test(text)) {
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n${more}`)
      } else if (text.startsWith('GET /never')) return
      else if (text.startsWith('GET')) socket.write(responseOf(String(count)))
      else socket.write(`echo ${text}`)
    })
  })
  return service
}

async function talk(socket: Duplex, first: string): Promise<string> {
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk
  })
  await eventually(() => text === first, 'the first bytes')
  socket.write('hello')
  await eventually(() => text === `${first}echo hello`, 'the echo')
  return text
}

t.test('an upgrade gets a new connection, and the bytes after the 101', async (t) => {
  const { url, count, sockets } = await upgrading(t, 'first bytes')
  const { ask, pool } = poolTo(t, url, { connections: 2 })
  await ask().done
  const heard = ask({ upgrade: 'x' })
  await heard.done
  t.strictSame([heard.events, heard.status, heard.headers.upgrade], [['start', 'upgrade'], 101, 'x'])
  t.equal(count(), 2)
  await iterations(3) // there is no listener yet
  await talk(heard.socket!, 'first bytes')
  for (const event of ['drain', 'data', 'close', 'end']) {
    t.ok(heard.socket!.listenerCount(event) <= (event === 'end' ? 2 : 1), event)
  }
  // An upgraded connection is not counted, and neither close() nor destroy() touches it.
  await Promise.all([ask(), ask()].map(({ done }) => done))
  await pool.close()
  pool.destroy()
  t.notOk(heard.socket!.destroyed)
  heard.socket!.destroy()
  await eventually(() => sockets.size === 0, 'the connections to close')
})

t.test('an upgrade does not wait for idle connections, nor other requests for an upgrade', async (t) => {
  const { url } = await upgrading(t)
  const { ask } = poolTo(t, url, { connections: 1 })
  await ask().done
  const begun = performance.now()
  const heard = ask({ upgrade: 'x' })
  const behind = ask()
  await Promise.all([heard.done, behind.done])
  t.strictSame([heard.status, behind.status], [101, 200])
  t.ok(performance.now() - begun < 2000)
  heard.socket!.destroy()
  const other = poolTo(t, url, { connections: 4 })
  const pending = [other.ask({ upgrade: 'y', path: '/never' }), other.ask({ upgrade: 'y', path: '/never' })]
  const plain = other.ask()
  await plain.done
  t.equal(plain.status, 200)
  for (const { controller } of pending) controller!.abort(new Error('enough'))
})
