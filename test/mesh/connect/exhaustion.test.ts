/** Exhausted resources of this process: no failure of an instance, and no retry. */
import { execFile } from 'node:child_process'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { upstream } from '../../helpers/mesh/servers.ts'

const run = promisify(execFile)

interface Seen {
  taken: number
  failures: string[]
  starved: object
  after: string
  logged: object[]
  counts: Record<string, number>
}

async function starve(mode: string, instances: readonly string[]): Promise<Seen> {
  const child = join(import.meta.dirname, '../../helpers/mesh/starved.ts')
  const args = ['-c', 'ulimit -n 100; exec "$0" "$@"', process.execPath, child, mode, ...instances]
  const { stdout } = await run('sh', args, { timeout: 60_000 })
  return JSON.parse(stdout) as Seen
}

t.test('calls fail with JW_OUT_OF_DESCRIPTORS under a real limit of descriptors', async (t) => {
  const close: RequestListener = (_request, response) => void response.setHeader('connection', 'close').end('well')
  const [a, b] = [await upstream(t, 'a', close), await upstream(t, 'b', close)]
  const localhost = b.url.replace('127.0.0.1', 'localhost')
  for (const [mode, ...instances] of [
    ['warm', a.url, localhost],
    ['cold', localhost]
  ] as const) {
    const seen = await starve(mode, instances)
    t.ok(seen.taken < 100, `${mode}: the limit was in force`)
    t.strictSame(seen.failures, Array(6).fill('JW_OUT_OF_DESCRIPTORS'), mode)
    t.match(seen.starved, { available: instances.map(() => true), circuit: { state: 'closed' } }, mode)
    t.equal(seen.after, '200', mode)
    t.match(seen.logged, [{ level: 'error' }], mode)
    t.equal(seen.logged.length, 1, `${mode}: logged once`)
    t.ok(seen.counts['jingwei_mesh_exhausted_total{descriptors}']! >= 6, mode)
    t.equal(seen.counts['jingwei_mesh_attempts_total{orders,local}'], 6, `${mode}: an attempt a call`)
    for (const name of Object.keys(seen.counts)) {
      t.notMatch(name, /retries|ejections|flips|health_checks_total\{orders,failure\}/, mode)
    }
  }
})
