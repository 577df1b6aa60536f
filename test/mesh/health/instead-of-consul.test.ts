/** With Consul's checks ignored, Consul decides only on the existence of an instance and on maintenance. */
import t from 'tap'
import { translate } from '../../../plugins/mesh/discovery/consul/translate.ts'

const entry = (checks: unknown) => ({
  Node: { Node: 'n1', Address: '10.0.0.1', Datacenter: 'dc1' },
  Service: { ID: 'web-1', Service: 'web', Address: '10.0.0.7', Port: 8080, Weights: { Passing: 7, Warning: 2 } },
  Checks: checks
})
const check = (Status: unknown, CheckID = 'service:web-1') => ({ CheckID, Status })

t.test('checks of Consul are ignored in any state, maintenance is not', async (t) => {
  const table: [checks: unknown, weight: number | undefined][] = [
    [[check('passing')], 7],
    [[check('warning')], 7],
    [[check('critical')], 7],
    [[check('critical', 'serfHealth')], 7],
    [[check('sideways')], 7],
    [[], 7],
    [[check('passing'), check('critical', '_node_maintenance')], undefined],
    [[check('critical', '_service_maintenance:web-1'), check('passing')], undefined]
  ]
  for (const [checks, weight] of table) {
    const { instances } = translate([entry(checks)], { tags: [], passingOnly: true, ignoreChecks: true })
    t.equal(instances[0]?.weight, weight, JSON.stringify(checks))
  }
  const { instances, skipped } = translate([entry('no list')], { tags: [], passingOnly: true, ignoreChecks: true })
  t.strictSame([instances.length, skipped], [0, 1], 'malformed entries are still ignored')
})
