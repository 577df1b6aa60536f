/** The snapshot file: whole or ignored. */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Entry } from '../../../plugins/mesh/discovery/snapshot-file.ts'
import { readEntries, tryToWrite, writeEntries } from '../../../plugins/mesh/discovery/snapshot-file.ts'

const entry = (service: string, count = 1): Entry => ({
  service,
  identity: 'x',
  confirmedAt: 1000,
  instances: Array.from({ length: count }, (_, i) => ({
    id: `n/${service}-${i}`,
    origin: `http://10.0.${i >> 8}.${i & 255}:80`,
    weight: 1,
    tags: ['größe\n'],
    meta: { k: 'v' }
  }))
})

t.test('the entries that were written are read', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  t.equal(readEntries(path), null, 'a missing file is read as null')
  const entries = [entry('web'), entry('orders', 3)]
  await writeEntries(path, entries)
  t.strictSame(readEntries(path), entries)
  t.equal(statSync(path).mode & 0o777, 0o600)
  await writeEntries(path, [])
  t.strictSame(readEntries(path), [])
  t.strictSame(readdirSync(join(path, '..')), ['snapshot'], 'no temporary file remains')
})

t.test('a file that a crash or a disk has damaged is detected', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  await writeEntries(path, [entry('web', 20), entry('orders')])
  const whole = readFileSync(path)
  for (let length = 0; length < whole.length; length += 97) {
    writeFileSync(path, whole.subarray(0, length))
    t.throws(() => readEntries(path), `a file of the first ${length} bytes is refused`)
  }
  writeFileSync(path, whole.subarray(0, -1))
  t.throws(() => readEntries(path), 'the last byte is missing')
  for (let at = 0; at < whole.length; at += 61) {
    const flipped = Buffer.from(whole)
    flipped[at] = flipped[at]! ^ 1
    writeFileSync(path, flipped)
    t.throws(() => readEntries(path), `a file with byte ${at} changed is refused`)
  }
  writeFileSync(path, whole)
  t.equal(readEntries(path)?.length, 2)
})

t.test('a file of another version is an error', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  for (const first of ['{"format":"jingwei-discovery","version":2}', '{"format":"other","version":1}', '[]', 'null']) {
    const sha256 = createHash('sha256').update(`${first}\n`).digest('hex')
    writeFileSync(path, `${first}\n{"sha256":"${sha256}"}\n`)
    t.throws(() => readEntries(path))
  }
})

t.test('a folder at the path is reported, and planted links are not followed', async (t) => {
  const folder = t.testdir({ victim: 'precious' })
  const path = join(folder, 'snapshot')
  mkdirSync(path)
  t.throws(() => readEntries(path), /not a file/)
  await t.rejects(tryToWrite(path), /not a file/)
  await t.rejects(writeEntries(path, []))
  await t.rejects(tryToWrite(join(folder, 'missing', 'snapshot')), { code: 'ENOENT' })
  symlinkSync(join(folder, 'victim'), `${join(folder, 'other')}.${process.pid}.tmp`)
  await writeEntries(join(folder, 'other'), [entry('web')])
  t.equal(readFileSync(join(folder, 'victim'), 'utf8'), 'precious')
  t.strictSame(readdirSync(folder).sort(), ['other', 'snapshot', 'victim'])
})

t.test('10,000 instances block the event loop only briefly', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  const entries = Array.from({ length: 1000 }, (_, i) => entry(`service-${i}`, 10))
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  })
  await writeEntries(path, entries)
  clearInterval(timer)
  t.comment(`${(statSync(path).size / 1e6).toFixed(1)} MB, at most ${longest.toFixed(1)} ms at a time`)
  t.ok(longest < 500)
  const began = performance.now()
  t.equal(readEntries(path)?.length, 1000)
  t.comment(`read in ${(performance.now() - began).toFixed(0)} ms`)
})
