// The services of a route are one field, which all others read: also the mesh, `explain`, the admin API.
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'

const services = 'services: { a: { instances: [http://127.0.0.1:1] }, b: { instances: [http://127.0.0.1:2] } }'
const compose = `
    match: { path: /home, methods: [GET] }
    mesh: { timeout: 3s }
    compose:
      calls:
        last: { service: a, path: '/x/{calls.first/id}', group: last, required: false, mesh: { retry: false } }
        first: { service: b, path: /y }
`
const loaded = (routes: string) => parseConfig(`${services}\nroutes:\n${routes}`, 'gateway.yaml', {}).routes

t.test('a service and a split are one target, with the policy of the route', async (t) => {
  const [plain, divided] = loaded(`
  - { name: plain, service: a, match: { path: /a }, mesh: { timeout: 1s } }
  - { name: divided, split: [{ service: b, weight: 1 }, { service: a, weight: 9 }], match: { path: /b } }
`)
  t.match(plain, { service: 'a', services: ['a'], isBridged: true, targets: [{ service: 'a', call: null }] })
  t.equal(plain!.targets[0]!.mesh, plain!.mesh, 'the same object, by which the mesh finds the chain')
  t.match(divided, { service: 'b', services: ['b', 'b', 'a'], targets: [{ service: 'b', call: null }] })
  t.equal(divided!.targets[0]!.mesh.split?.length, 2)
  t.ok(Object.isFrozen(plain!.targets[0]!.mesh))
})

t.test('calls are targets, in the order of their references and with the settings of the route', async (t) => {
  const [home] = loaded(`  - name: home${compose}`)
  t.strictSame(home!.targets, [
    {
      service: 'b',
      mesh: { timeout: 3000 },
      call: { name: 'first', method: 'GET', path: '/y', after: [], required: true }
    },
    {
      service: 'a',
      mesh: { timeout: 3000, retry: false },
      call: { name: 'last', method: 'GET', path: '/x/{calls.first/id}', after: ['first'], required: false }
    }
  ])
  t.match(home, { service: 'b', services: ['b', 'a'], isBridged: false })
})

t.test('the header by which a call alone lets a peer inject faults is believed', async (t) => {
  const text = `${services}\nroutes:\n  - name: home${compose.replace('retry: false', 'fault: { header: true }')}`
  const { instructions } = parseConfig(text, 'gateway.yaml', {})
  t.ok(instructions.believed.includes('x-jingwei-fault-delay'), instructions.believed.join())
})
