import t from 'tap'
import { build } from '../../app.ts'
import { parseConfig } from '../../plugins/config.ts'
import { manyRoutes } from '../helpers/large-config.ts'
import { longestStretch } from '../helpers/loop-stretches.ts'

t.test('a gateway of 1,000 routes is built without blocking the event loop', async (t) => {
  const config = parseConfig(manyRoutes(1000), 'gateway.yaml', {})
  const gateway = build(config, { logger: false })
  t.teardown(() => gateway.close())
  const { longest, all } = await longestStretch(async () => {
    await gateway.ready()
  })
  t.ok(longest < all / 6, `longest stretch ${longest} ms of ${all} ms`)
})
