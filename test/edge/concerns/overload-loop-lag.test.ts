// slow: takes about 8 s
/** A gateway with a lagging event loop refuses requests, so that requests in flight complete. */
import t from 'tap'
import { LoopLag } from '../../../plugins/edge/concerns/overload/loop-lag.ts'
import { get, startGateway, startService } from '../../helpers/gateway.ts'

t.test('the loop lags after three late timers in a row, until one is on time', async (t) => {
  let nowMs = 0
  const changes: boolean[] = []
  const lag = new LoopLag((isLagging) => changes.push(isLagging), nowMs)
  t.teardown(() => lag.close())
  const ticks = (...gaps: number[]) => {
    for (const gap of gaps) {
      nowMs += gap
      lag.tick(nowMs)
    }
    return lag.isLagging
  }
  t.notOk(ticks(500, 900, 500))
  t.notOk(ticks(5000, 500), 'one long block is no lag')
  t.notOk(ticks(2000, 2000, 500), 'two')
  t.ok(ticks(2000, 2000, 2000))
  t.ok(ticks(2000))
  t.notOk(ticks(500))
  t.strictSame(changes, [true, false])
})

t.test('the gateway responds with 503 and Retry-After while a real loop lags', async (t) => {
  const service = await startService((_request, response) => response.end('well'))
  t.teardown(service.close)
  const config = {
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  const { port, close, log } = await startGateway(config, { log: true })
  t.teardown(close)
  t.equal((await get(port, '/')).status, 200)
  let blocking = true
  const block = () => {
    if (!blocking) return
    const end = performance.now() + 1700
    while (performance.now() < end);
    setTimeout(block, 5)
  }
  block()
  let response = await get(port, '/')
  while (response.status === 200) response = await get(port, '/')
  blocking = false
  t.match(response, {
    status: 503,
    headers: { 'retry-after': '1', 'proxy-status': 'jingwei; error=proxy_internal_error' }
  })
  t.match(JSON.parse(response.body), { code: 'JW_OUT_OF_CPU' })
  while (response.status !== 200) response = await get(port, '/')
  const levels = log.filter(({ msg }) => String(msg).startsWith('event loop')).map(({ level }) => level)
  t.strictSame(levels, [50, 30], 'an error line, then an info line')
})
