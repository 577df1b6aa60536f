/** Instances over a restart: discovery by hand, with a clock of the test. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { InstanceSpec, SourceStatus } from '../../../plugins/mesh/core/types.ts'
import type { Publish, Restorable } from '../../../plugins/mesh/discovery/loop.ts'
import { registerSnapshotMetrics, Snapshot } from '../../../plugins/mesh/discovery/snapshot.ts'
import { readEntries } from '../../../plugins/mesh/discovery/snapshot-file.ts'
import type { Meter } from '../../../plugins/meter.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording } from '../../helpers/mesh/sources.ts'

const one = (port: number): InstanceSpec => {
  const origin = `http://127.0.0.1:${port}`
  return { id: origin, origin, weight: 1, tags: [], meta: {} }
}

class ByHand implements Restorable {
  publish: Publish = () => {}
  restored: readonly InstanceSpec[] | undefined
  confirmedAt: number | null = null
  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    this.publish = publish
    this.restored = restored
  }
  status(): SourceStatus {
    return { kind: 'by hand', confirmedAt: this.confirmedAt, error: null }
  }
  async close(): Promise<void> {}
}

/** Returns the values of a scrape, by service. */
function gaugesOf(snapshot: Snapshot | null) {
  const gauges: Record<string, () => Record<string, number>> = {}
  const meter: Meter = {
    ...recording().surroundings.meter!,
    gauge: ({ name, collect }) => {
      gauges[name] = () => {
        const values: Record<string, number> = {}
        collect(({ service = '' }, value) => void Object.assign(values, { [service]: value }))
        return values
      }
      return () => {}
    }
  }
  registerSnapshotMetrics(meter, snapshot)
  return gauges
}

/** One run of a gateway; `wall` and `now` are its clocks. */
function life(path: string, wall: number, maxAge = 3_600_000) {
  const { surroundings, lines } = recording()
  const clock = { wall, now: 50_000 }
  const snapshot = new Snapshot(
    { path, maxAge },
    { ...surroundings, now: () => clock.now },
    { wall: () => clock.wall, timing: { every: 20, refresh: 150 } }
  )
  const gauges = gaugesOf(snapshot)
  const open = (name: string, identity = 'same') => {
    const inner = new ByHand()
    const source = snapshot.wrap(name, identity, inner)
    const sets: number[][] = []
    source.start((set) => void sets.push(set.map(({ origin }) => Number(new URL(origin).port))))
    return {
      sets,
      inner,
      status: () => source.status(),
      publish: (...ports: number[]) => {
        inner.confirmedAt = clock.now
        inner.publish(ports.map(one))
      }
    }
  }
  const restored = () => gauges.jingwei_mesh_discovery_restored!()
  return {
    snapshot,
    open,
    clock,
    lines,
    restored,
    failing: () => gauges.jingwei_mesh_discovery_snapshot_failing!()['']
  }
}

t.test('a restart begins with the instances of the run before', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const first = life(path, 1_000_000)
  first.snapshot.startWriting()
  const [web, gone, silent] = [first.open('web'), first.open('gone'), first.open('silent')]
  t.match(web.status(), { confirmedAt: null })
  web.publish(1, 2)
  gone.publish(3)
  gone.publish()
  await eventually(() => readEntries(path)?.[0]?.instances.length === 2)
  first.clock.wall += 7000
  first.clock.now += 7000
  await first.snapshot.close()
  t.match(readEntries(path), [{ service: 'web', confirmedAt: 1_000_000 }], 'the entry has the time of its confirmation')
  t.same(silent.sets, [])
  t.same(first.lines, [])

  const second = life(path, 1_060_000)
  second.snapshot.startWriting()
  const again = second.open('web')
  const [none, other, before] = [second.open('gone'), second.open('silent', 'another'), second.open('new')]
  t.same(again.sets, [[1, 2]], 'the restored set is published at once')
  t.same(again.inner.restored?.length, 2, 'the source gets the restored set')
  t.match(again.status(), { kind: 'by hand', confirmedAt: 50_000 - 60_000, restored: true })
  for (const each of [none, other, before]) t.match([each.sets, each.status().confirmedAt], [[], null])
  t.same(second.restored(), { web: 1, gone: 0, silent: 0, new: 0 })
  await eventually(() => second.lines.length === 1)
  t.match(second.lines, [{ level: 'info', fields: { path, services: 1, instances: 2, ageMs: 60_000 } }])

  again.publish(2)
  t.same(again.sets, [[1, 2], [2]])
  t.equal(again.status().restored, undefined)
  t.equal(second.restored().web, 0)
  await second.snapshot.close()
  t.match(readEntries(path), [{ service: 'web', instances: { length: 1 }, confirmedAt: 1_060_000 }])
})

t.test('an unconfirmed set ages over any number of restarts', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const first = life(path, 0)
  first.snapshot.startWriting()
  first.open('web').publish(1)
  first.open('old').publish(2)
  await first.snapshot.close()
  for (const wall of [1_200_000, 2_400_000]) {
    const next = life(path, wall)
    next.snapshot.startWriting()
    const [web, old] = [next.open('web'), next.open('old')]
    t.equal(old.status().confirmedAt, 50_000 - wall)
    t.same(web.sets, [[1]])
    web.publish(1)
    await next.snapshot.close()
    t.match(readEntries(path), [
      { service: 'web', confirmedAt: wall },
      { service: 'old', confirmedAt: 0 }
    ])
  }
  const last = life(path, 3_600_001)
  t.same(last.open('old').sets, [], 'this set is too old')
  t.same(last.open('web').sets, [[1]], 'a recent set is restored')
  await eventually(() => last.lines.length === 1)
  t.match(last.lines, [{ level: 'info', fields: { services: 1, tooOld: 1 } }])
  const late = life(path, 9_000_000)
  t.same(late.open('web').sets, [])
  await eventually(() => late.lines.length === 1)
  t.match(late.lines, [{ level: 'warn', fields: { path, tooOld: 1 }, message: /too old/ }])
  const back = life(path, -5000)
  t.equal(back.open('web').status().confirmedAt, 50_000, 'with a clock that was set back, no set is younger than now')
})

t.test('instances of another query are not restored', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const first = life(path, 0)
  first.snapshot.startWriting()
  first.open('web', 'dc1').publish(1)
  await first.snapshot.close()
  t.same(life(path, 0).open('web', 'dc2').sets, [])
})

t.test('without a change, the confirmation time in the file is updated', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const { snapshot, open, clock } = life(path, 1000)
  snapshot.startWriting()
  const web = open('web')
  web.publish(1)
  await eventually(() => readEntries(path)?.[0]?.confirmedAt === 1000)
  clock.wall += 5000
  clock.now += 5000
  web.inner.confirmedAt = clock.now
  await eventually(() => readEntries(path)?.[0]?.confirmedAt === 6000)
  await snapshot.close()
})

t.test('a snapshot that was not started for writing writes nothing', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const { snapshot, open } = life(path, 0)
  open('web').publish(1)
  await snapshot.close()
  t.equal(readEntries(path), null)
})

t.test('a run without any response does not change the file', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const first = life(path, 0)
  first.snapshot.startWriting()
  first.open('web').publish(1)
  first.open('other').publish(2)
  await first.snapshot.close()
  const before = readFileSync(path, 'utf8')
  const second = life(path, 9000)
  second.snapshot.startWriting()
  second.open('web')
  await second.snapshot.close()
  t.equal(readFileSync(path, 'utf8'), before)
})

t.test('a corrupt file: logged once, and replaced at the next write', async (t) => {
  const path = join(t.testdir({ snapshot: '{"half":' }), 'snapshot')
  const { snapshot, open, lines } = life(path, 0)
  snapshot.startWriting()
  const web = open('web')
  t.same(web.sets, [])
  t.match(lines, [{ level: 'warn', fields: { path, err: Error }, message: /cannot be used/ }])
  web.publish(1)
  await snapshot.close()
  t.equal(lines.length, 1)
  t.equal(readEntries(path)?.length, 1)
})

t.test('a path that cannot be written: logged once at the start, and once when it can be written again', async (t) => {
  const folder = t.testdir({ taken: 'a file, not a folder' })
  const path = join(folder, 'taken', 'snapshot')
  const { snapshot, open, lines, failing } = life(path, 0)
  snapshot.startWriting()
  await eventually(() => lines.some(({ message }) => /cannot be written/.test(message)))
  t.equal(failing(), 1)
  const web = open('web')
  web.publish(1)
  web.publish(1, 2)
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.same(web.sets, [[1], [1, 2]], 'discovery continues without the file')
  const warnings = () => lines.filter(({ message }) => /cannot be written/.test(message)).length
  t.equal(warnings(), 1)
  rmSync(join(folder, 'taken'))
  mkdirSync(join(folder, 'taken'))
  web.publish(2)
  await eventually(() => lines.some(({ message }) => /can be written again/.test(message)))
  t.equal(failing(), 0)
  await snapshot.close()
  t.equal(readEntries(path)?.[0]?.instances.length, 1)
})

t.test('without a snapshot the metrics raise no alarm', async (t) => {
  const gauges = gaugesOf(null)
  t.same(gauges.jingwei_mesh_discovery_restored!(), {})
  t.same(gauges.jingwei_mesh_discovery_snapshot_failing!(), { '': 0 })
})
