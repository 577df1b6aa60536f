import { Duplex } from 'node:stream'
import t from 'tap'
import { Tunnel } from '../../plugins/edge/tunnel.ts'
import { eventually } from '../helpers/gateway.ts'

/** A connection of which the test is the far end. */
class Connection extends Duplex {
  readonly received: Buffer[] = []
  /** Lets go of a write that is held. */
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

t.test('what the service said before it ended still reaches a slow client', async (t) => {
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
  t.equal(ended, 0, 'the client may still hold its end')
  client.push(null)
  await eventually(() => ended > 0)
  t.equal(ended, 1)
  t.equal(tunnel.bytesSent, 6)
})

t.test('an error of one side ends both, and only the service’s is a failure', async (t) => {
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

t.test('closing does not wait for a side that never answers', async (t) => {
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
