/** The states of a service: one for each key and variant, whatever the names. */
import t from 'tap'
import { StateKey } from '../../../plugins/mesh/core/service-state.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { meshOf, service } from '../../helpers/mesh/mesh.ts'

class Counter {
  count = 0

  status() {
    return { count: this.count }
  }
}

class Latch {
  isSet = false

  close() {
    this.isSet = true
  }
}

t.test('concerns with state of the same name do not share it', async (t) => {
  const mesh = meshOf(t, [service('orders', []), service('users', [])], { discovery: byHand().discovery })
  const [orders, users] = [mesh.service('orders'), mesh.service('users')]
  const counter = new StateKey<Counter>('mine')
  const latch = new StateKey<Latch>('mine')
  const one = orders.state(counter, () => new Counter())
  const other = orders.state(latch, () => new Latch())
  t.ok(one instanceof Counter)
  t.ok(other instanceof Latch)
  t.equal(
    orders.state(counter, () => t.fail('it is there') as never),
    one
  )
  t.not(
    users.state(counter, () => new Counter()),
    one,
    'each service has its own state'
  )
})

t.test('variants of one state are shown by their names', async (t) => {
  const mesh = meshOf(t, [service('orders', [])], { discovery: byHand().discovery })
  const orders = mesh.service('orders')
  const counter = new StateKey<Counter>('copies to')
  const first = orders.state(counter, () => new Counter(), 'a')
  const second = orders.state(counter, () => new Counter(), 'b')
  t.not(first, second)
  second.count = 2
  t.match(orders.status().concerns, { 'copies to a': { count: 0 }, 'copies to b': { count: 2 } })
})
