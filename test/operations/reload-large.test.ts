// slow: takes about 5 s
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import { manyRoutes } from '../helpers/large-config.ts'
import { longestStretch } from '../helpers/loop-stretches.ts'

t.test('a reload of 1,000 routes and services blocks the event loop only briefly at a time', async (t) => {
  const text = manyRoutes(1000)
  const file = join(t.testdir({ 'gateway.yaml': text }), 'gateway.yaml')
  const runtime = await start(await loadConfig(file))
  t.teardown(() => runtime.close())
  for (const timeout of ['4s', '5s']) {
    // Changes all services and all routes.
    const changed = text
      .replaceAll('slowStart: 30s', `slowStart: ${timeout}`)
      .replaceAll('timeout: 3s', `timeout: ${timeout}`)
    writeFileSync(file, changed)
    const { result, longest, all } = await longestStretch(() => runtime.reload('test'))
    t.match(result, { applied: true, faults: [] })
    t.ok(longest < all / 6, `longest stretch ${longest} ms of ${all} ms`)
  }
})
