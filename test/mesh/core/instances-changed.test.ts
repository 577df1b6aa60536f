/** The log line of a service whose instances have changed: which were added and removed, by address. */
import t from 'tap'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { meshOf, service } from '../../helpers/mesh/mesh.ts'

t.test('a change of the instances names the addresses that were added and removed', async (t) => {
  const { discovery, publish } = byHand()
  const lines: object[] = []
  const info = (fields: object, message: string) => {
    if (/instances/.test(message)) lines.push({ ...fields, message })
  }
  meshOf(t, [service('orders', [])], { discovery, log: { info, warn() {}, error() {} } })
  const origins = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, index) => `http://10.0.0.${from + index}:80`)
  const line = () => lines.splice(0)
  const about = { service: 'orders', message: 'instances of orders changed' }
  publish('orders', origins(1, 4))
  t.strictSame(line(), [{ ...about, instances: 3, added: origins(1, 4), removed: [] }])
  publish('orders', origins(2, 5))
  t.strictSame(line(), [{ ...about, instances: 3, added: origins(4, 5), removed: origins(1, 2) }])
  publish('orders', [])
  t.strictSame(line(), [{ ...about, instances: 0, added: [], removed: origins(2, 5) }])
  publish('orders', origins(1, 101))
  t.strictSame(line(), [{ ...about, instances: 100, added: origins(1, 21), addedCount: 100, removed: [] }])
  publish('orders', origins(1, 2))
  t.strictSame(line(), [{ ...about, instances: 1, added: [], removed: origins(2, 22), removedCount: 99 }])
})

t.test('an empty first result is not logged as a change', async (t) => {
  const { discovery, publish } = byHand()
  const messages: string[] = []
  const info = (_fields: object, message: string) => void messages.push(message)
  meshOf(t, [service('legacy', [])], { discovery, log: { info, warn() {}, error() {} } })
  publish('legacy', [])
  publish('legacy', ['http://10.0.0.1:80'])
  publish('legacy', [])
  t.strictSame(messages, [
    'legacy has no instances: the first result of discovery is empty',
    'instances of legacy changed',
    'instances of legacy changed'
  ])
})
