import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'

const file = 'gateway.yaml'

t.test('a file of 20,000 routes and one with 5,000 aliases are loaded', async (t) => {
  const routes = (count: number) => [
    'services: { a: { instances: [http://h] } }',
    'routes:',
    ...Array.from(
      { length: count },
      (_, i) => `  - { name: r${i}, service: a, match: { path: /x${i}, methods: [GET, PUT] } }`
    )
  ]
  t.equal(parseConfig(routes(20_000).join('\n'), file, {}).routes.length, 20_000)
  const edge = (i: number) => `, edge: ${i === 0 ? '&e { accessLog: false }' : '*e'} }`
  const aliased = routes(5000).map((line, i) => (i < 2 ? line : line.replace(/ }$/, edge(i - 2))))
  t.equal(parseConfig(aliased.join('\n'), file, {}).routes.at(-1)?.edge.accessLog, false)
})
