/** Invalidations of the cache that Redis does not confirm at once. */
import type { Test } from 'tap'
import t from 'tap'
import { RedisInvalidations } from '../../../plugins/edge/concerns/cache/redis-invalidations.ts'

interface Sent {
  /** Null: everything is purged. */
  readonly resources: readonly string[] | null
  readonly done: (isConfirmed: boolean) => void
}

/** Returns invalidations whose commands are collected, for the test to reply to. */
function collecting(t: Test) {
  const sent: Sent[] = []
  const invalidations = new RedisInvalidations(
    (resources, _isRepeated, done) => sent.push({ resources, done }),
    (done) => sent.push({ resources: null, done }),
    () => true
  )
  t.teardown(() => invalidations.close())
  const next = (): Sent => {
    const [command] = sent.splice(0, 1)
    if (command === undefined) throw new Error('no command was sent')
    return command
  }
  const fail = (...resources: string[]) => {
    invalidations.add(resources, () => {})
    sent.pop()!.done(false)
  }
  return { invalidations, sent, next, fail }
}

const many = Array.from({ length: 10_001 }, (_, i) => `/${i}`)

t.test('one that fails while it is repeated is sent again', (t) => {
  const { invalidations, sent, next, fail } = collecting(t)
  fail('/a', '/b')
  t.notOk(invalidations.areConfirmed)
  invalidations.repeat()
  const first = next()
  t.strictSame(first.resources, ['/a', '/b'])
  fail('/a')
  t.notOk(invalidations.areConfirmed)
  first.done(true)
  t.notOk(invalidations.areConfirmed)
  const second = next()
  t.strictSame(second.resources, ['/a'])
  second.done(true)
  t.ok(invalidations.areConfirmed)
  t.strictSame(sent, [])
  t.end()
})

t.test('those that fail while everything is purged are sent', (t) => {
  const { invalidations, next, fail } = collecting(t)
  fail(...many)
  invalidations.repeat()
  const purge = next()
  t.equal(purge.resources, null)
  fail('/a')
  purge.done(true)
  t.notOk(invalidations.areConfirmed)
  const second = next()
  t.strictSame(second.resources, ['/a'])
  second.done(true)
  t.ok(invalidations.areConfirmed)
  t.end()
})

t.test('a repeat that fails is sent again, with those that failed meanwhile', (t) => {
  const { invalidations, sent, next, fail } = collecting(t)
  fail('/a')
  invalidations.repeat()
  t.notOk(invalidations.areConfirmed, 'the reply may be lost')
  const first = next()
  fail('/b')
  invalidations.repeat()
  t.strictSame(sent, [], 'one repeat at a time')
  first.done(false)
  invalidations.repeat()
  const second = next()
  t.strictSame([...second.resources!].sort(), ['/a', '/b'])
  second.done(true)
  t.ok(invalidations.areConfirmed)
  t.end()
})

t.test('a purge of everything that fails is sent again', (t) => {
  const { invalidations, next, fail } = collecting(t)
  fail(...many)
  invalidations.repeat()
  const first = next()
  t.notOk(invalidations.areConfirmed)
  fail('/a')
  first.done(false)
  t.notOk(invalidations.areConfirmed)
  invalidations.repeat()
  const second = next()
  t.equal(second.resources, null)
  second.done(true)
  t.ok(invalidations.areConfirmed)
  t.end()
})

t.test('more than one command takes are sent one command after the other', (t) => {
  const { invalidations, next, fail } = collecting(t)
  fail(...many.slice(0, 2500))
  invalidations.repeat()
  const resources: string[] = []
  for (const count of [1000, 1000, 500]) {
    const { resources: each, done } = next()
    t.equal(each!.length, count)
    resources.push(...each!)
    t.notOk(invalidations.areConfirmed)
    done(true)
  }
  t.strictSame(resources, many.slice(0, 2500))
  t.ok(invalidations.areConfirmed)
  t.end()
})
