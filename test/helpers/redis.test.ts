// slow: starts Redis
import t from 'tap'
import { ask, startRedis } from './redis.ts'

t.test('Redis responds to PING, hangs while suspended, and refuses connections when stopped', async (t) => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  t.equal(await ask(redis.port, 'PING'), '+PONG')
  redis.pause()
  await t.rejects(ask(redis.port, 'PING'), /does not respond/)
  redis.resume()
  t.equal(await ask(redis.port, 'PING'), '+PONG')
  redis.pause()
  await redis.stop()
  await t.rejects(ask(redis.port, 'PING'), { code: 'ECONNREFUSED' })
})
