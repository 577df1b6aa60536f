/** The count of descriptors against the limit of the process. */
import { closeSync, openSync } from 'node:fs'
import { devNull } from 'node:os'
import { setImmediate as nextIteration } from 'node:timers/promises'
import t from 'tap'
import { Descriptors, descriptorLimit } from '../../../plugins/edge/concerns/overload/descriptors.ts'
import { limitFor, reserveOf } from '../../../plugins/edge/concerns/overload/index.ts'
import { startGateway } from '../../helpers/gateway.ts'

t.test('the limit of descriptors is that of the process', async (t) => {
  const limit = descriptorLimit()
  t.ok(limit > 100, `${limit}`)
})

t.test('descriptors are counted only when the limit could have been reached', async (t) => {
  let open = 50
  let counts = 0
  const count = () => {
    counts++
    return open
  }
  const descriptors = new Descriptors(100, count, () => 0)
  counts = 0
  t.notOk(descriptors.isShort(20))
  t.equal(counts, 1, 'the first check counts')
  for (let i = 0; i < 29; i++) {
    descriptors.noteOpen()
    t.notOk(descriptors.isShort(20))
  }
  t.equal(counts, 1, 'at most 79 descriptors can be open')
  descriptors.noteOpen()
  t.notOk(descriptors.isShort(20))
  t.equal(counts, 2, '80 descriptors can be open, and 50 are counted')
  open = 80
  for (let i = 0; i < 30; i++) descriptors.noteOpen()
  t.ok(descriptors.isShort(20))
  t.notOk(descriptors.isShort(10))
  open = 79
  t.notOk(descriptors.isShort(20), 'one descriptor was closed')
})

t.test('announced descriptors are included until the next count', async (t) => {
  let open = 50
  const descriptors = new Descriptors(100, () => open, () => 0) // biome-ignore format: short
  for (let i = 0; i < 29; i++) {
    descriptors.announce()
    t.notOk(descriptors.isShort(20))
  }
  descriptors.announce()
  t.ok(descriptors.isShort(20), 'the announced descriptors are as many as are free')
  await nextIteration()
  t.ok(descriptors.isShort(20), 'announced descriptors count until the next iteration')
  open = 75
  await nextIteration()
  await nextIteration()
  t.notOk(descriptors.isShort(20), 'only 25 descriptors were opened')
  t.ok(descriptors.isShort(25))
})

t.test('slow counting takes at most a twentieth of the time', async (t) => {
  let nowMs = 0
  let counts = 0
  const count = () => {
    counts++
    nowMs += 5
    return 90
  }
  const descriptors = new Descriptors(100, count, () => nowMs)
  counts = 0
  for (let i = 0; i < 10; i++) t.ok(descriptors.isShort(20))
  t.equal(counts, 1)
  nowMs += 100
  t.ok(descriptors.isShort(20))
  t.equal(counts, 2)
})

t.test('without a known limit of the system, descriptors are never short', async (t) => {
  t.equal(new Descriptors(100, () => null).limit, Number.POSITIVE_INFINITY)
})

t.test('the descriptors of this process are counted', async (t) => {
  const taken: number[] = []
  t.teardown(() => taken.map((each) => closeSync(each)))
  const limit = descriptorLimit()
  // The tolerance covers descriptors that other code of this process opens and closes.
  const descriptors = new Descriptors()
  t.equal(descriptors.limit, limit)
  let reserve = limit
  while (descriptors.isShort(reserve)) reserve--
  const open = limit - reserve
  t.ok(open > 3 && open < 1000, `${open}`)
  for (let i = 0; i < 500; i++) taken.push(openSync(devNull, 'r'))
  for (let i = 0; i < 500; i++) descriptors.noteOpen()
  t.ok(new Descriptors().isShort(limit - open - 400), 'the 500 open files are counted')
})

t.test('the reserve grows with the limit, within bounds', async (t) => {
  t.strictSame(
    [100, 256, 1024, 65_536].map((limit) => reserveOf(limit)),
    [
      { connections: 32, requests: 8 },
      { connections: 32, requests: 8 },
      { connections: 102, requests: 25 },
      { connections: 1024, requests: 256 }
    ]
  )
})

t.test('the start warns of connections that the limit does not allow, and names the number that does', async (t) => {
  for (const connections of [1, 10, 26, 400, 10_000, 1_000_000]) {
    const limit = limitFor(connections)
    t.ok(limit - reserveOf(limit).connections >= connections, `${connections}`)
  }
  t.equal(limitFor(10_000), 25_000)
  const limit = descriptorLimit()
  if (limit === Number.POSITIVE_INFINITY) return
  const warnings = async (connections: number) => {
    const gateway = await startGateway({ listen: { limits: { connections } }, services: {}, routes: [] }, { log: true })
    await gateway.close()
    return gateway.log.filter(({ msg }) => String(msg).startsWith('listen.limits.connections cannot be reached'))
  }
  const [warning, ...others] = await warnings(limit)
  const needed = Math.ceil(2.5 * limit)
  t.match(warning, { level: 40, limit, connections: limit, needed })
  t.match(warning?.msg, `${limit} connections of clients need ${needed} open files`)
  t.match(warning?.msg, `(ulimit -n ${needed}, `)
  t.strictSame([others, await warnings(10)], [[], []])
})
