// close() leaves no handles: a process that only closes its gateway exits by itself.
import { join } from 'node:path'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { upstreamProcess } from '../helpers/e2e/upstream.ts'
import { runToEnd } from '../helpers/processes.ts'

const program = join(import.meta.dirname, '../helpers/e2e/open-and-close.ts')

t.test('the process exits by itself after close, without open handles', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const instance = await upstreamProcess(t, 'a')
  await consul.register({ id: 'orders-1', name: 'orders', port: instance.port })

  const cases = [
    ['used', consul.url, 'with keep-alive clients, blocking queries at Consul, no Redis and no DNS'],
    ['ready', consul.url, 'closed as soon as it listens'],
    ['ready', 'http://127.0.0.1:9', 'while Consul is unavailable'],
    ['built', consul.url, 'that never listened']
  ] as const
  for (const [stage, url, what] of cases) {
    const began = performance.now()
    const { code, stdout, stderr } = await runToEnd(process.execPath, [program, url, stage], { timeout: 30_000 })
    t.equal(code, 0, `a gateway ${what}: exits with 0`)
    t.equal(stderr, '')
    const { before, after, took } = JSON.parse(stdout || '{}') as { before: string[]; after: string[]; took: number }
    t.strictSame(after, before, 'no socket, timer or watcher remains')
    t.ok(took < 5000, `close took ${took?.toFixed(0)} ms`)
    t.ok(performance.now() - began < 20_000)
  }
})
