import { Duplex } from 'node:stream'
import t from 'tap'
import { Tunnel } from '../../../plugins/edge/protocol/websocket/tunnel.ts'
import { eventually } from '../../helpers/eventually.ts'

/** A connection with the test as its peer. */
class Connection extends Duplex {
  readonly received: Buffer[] = []
  /** Completes a held write. */
  acknowledge: (() => void) | null = null
  readonly #slow: boolean

  constructor({ slow = false, allowHalfOpen = true } = {}) {
    super({ allowHalfOpen })
    this.#slow = slow
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.received.push(chunk)
    if (this.#slow) this.acknowledge = done
    else done()
  }
}

t.test('bytes of a service that has ended still reach a slow client', async (t) => {
  const client = new Connection({ slow: true })
  const service = new Connection({ allowHalfOpen: false })
  let ended = 0
  const tunnel = new Tunnel(client, service, 0, () => ended++)
  service.push('one')
  service.push('two')
  service.push(null)
  await eventually(() => service.closed)
  t.notOk(client.destroyed)
  client.acknowledge?.()
  await eventually(() => client.received.length === 2)
  client.acknowledge?.()
  await eventually(() => client.writableFinished)
  t.equal(Buffer.concat(client.received).toString(), 'onetwo')
  t.equal(ended, 0, 'the client may still send')
  client.push(null)
  await eventually(() => ended > 0)
  t.equal(ended, 1)
  t.equal(tunnel.bytesSent, 6)
})

t.test('an error of one side closes both, and only the service’s is a failure', async (t) => {
  for (const culprit of ['client', 'service'] as const) {
    const sides = { client: new Connection(), service: new Connection() }
    let ended: (Error | null)[] = []
    new Tunnel(sides.client, sides.service, 60_000, (error) => {
      ended = [...ended, error]
    })
    sides[culprit].destroy(new Error('broken'))
    await eventually(() => ended.length > 0)
    t.ok(sides.client.destroyed && sides.service.destroyed)
    t.strictSame(
      ended.map((error) => error?.message),
      [culprit === 'service' ? 'broken' : undefined]
    )
  }
})

t.test('closing does not wait for a side that never ends', async (t) => {
  const client = new Connection({ slow: true })
  const service = new Connection()
  let ended = false
  const tunnel = new Tunnel(client, service, 0, () => {
    ended = true
  })
  tunnel.close()
  tunnel.close()
  await eventually(() => ended)
  t.equal(client.received.length, 1)
  t.equal(service.received.length, 1)
})

/** Ways in which a connection may end before it is joined: each event has been emitted, or is about to be. */
const over: Record<string, (connection: Connection) => Promise<void>> = {
  ended: async (connection) => {
    connection.resume().push(null)
    await eventually(() => connection.readableEnded)
  },
  'ended and destroyed': async (connection) => {
    connection.resume().push(null)
    await eventually(() => connection.readableEnded)
    connection.destroy()
  },
  'ended and closed': async (connection) => {
    connection.resume().push(null)
    await eventually(() => connection.readableEnded)
    connection.destroy()
    await eventually(() => connection.closed)
  },
  destroyed: async (connection) => void connection.destroy(),
  closed: async (connection) => {
    connection.destroy()
    await eventually(() => connection.closed)
  }
}

for (const culprit of ['client', 'service'] as const) {
  for (const [how, leave] of Object.entries(over)) {
    t.test(`a ${culprit} that is ${how} at the start ends the tunnel, for any later event`, async (t) => {
      const sides = { client: new Connection(), service: new Connection() }
      const other = culprit === 'client' ? sides.service : sides.client
      sides[culprit].on('error', () => {})
      await leave(sides[culprit])
      let ended = 0
      const pings = setInterval(() => other.readable && other.push('ping'), 5)
      t.teardown(() => clearInterval(pings))
      // Ends when its peer has ended, as most sockets do.
      if (how === 'ended') other.once('finish', () => other.push(null))
      new Tunnel(sides.client, sides.service, 100, () => ended++)
      if (how === 'ended') sides[culprit].once('finish', () => sides[culprit].destroy())
      await eventually(() => ended > 0)
      await eventually(() => other.closed)
      t.equal(ended, 1)
    })
  }
}

t.test('a service that still sends to a client that has left is closed', async (t) => {
  const client = new Connection()
  const service = new Connection()
  let ended = false
  new Tunnel(client, service, 100, () => {
    ended = true
  })
  const pings = setInterval(() => service.readable && service.push('ping'), 5)
  t.teardown(() => clearInterval(pings))
  client.push(null)
  await eventually(() => client.readableEnded)
  client.destroy()
  await eventually(() => ended)
  t.ok(service.destroyed)
})

t.test('a side that reads nothing for the idle timeout ends the tunnel, although both send', async (t) => {
  for (const culprit of ['client', 'service'] as const) {
    const sides = { client: new Connection(), service: new Connection(), [culprit]: new Connection({ slow: true }) }
    let ended = false
    new Tunnel(sides.client, sides.service, 100, () => {
      ended = true
    })
    const both = setInterval(() => {
      for (const side of [sides.client, sides.service]) if (side.readable) side.push(Buffer.alloc(65_536))
    }, 5)
    await eventually(() => ended)
    clearInterval(both)
    t.ok(sides.client.destroyed && sides.service.destroyed)
  }
})
