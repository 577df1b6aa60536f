/** A body that is delimited by its connection is complete only if the connection was closed properly. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { meshOf, Recorder, service } from '../../helpers/mesh/mesh.ts'
import { raw } from '../../helpers/mesh/servers.ts'

const headerSection = 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n'

async function ending(t: Parameters<typeof raw>[0], how: 'end' | 'resetAndDestroy') {
  const { url } = await raw(t, (socket) => {
    socket.once('data', async () => {
      socket.write(`${headerSection}some of it`)
      await sleep(50)
      socket[how]()
    })
  })
  const recorder = new Recorder()
  meshOf(t, [service('orders', [url])]).dispatch({ origin: 'http://orders.mesh', path: '/', method: 'GET' }, recorder)
  await recorder.done
  return recorder
}

t.test('a response that ends with the close of the connection is complete', async (t) => {
  t.match(await ending(t, 'end'), { events: ['start', '200', 'data', 'end'], body: 'some of it' })
})

t.test('a response that ends with a reset is incomplete, and the caller gets an error', async (t) => {
  t.match(await ending(t, 'resetAndDestroy'), {
    events: ['start', '200', 'data', 'error'],
    error: { code: 'JW_UPSTREAM_RESET' }
  })
})
