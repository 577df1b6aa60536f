import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadWithoutPlugins, parseConfig } from '../../plugins/config.ts'

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

t.test('a file of more than 64 MB is refused, and so is a YAML document of more than 16 MB', async (t) => {
  const folder = t.testdir({ 'gateway.yaml': '', 'api.yaml': 'openapi: 3.1.0' })
  const path = join(folder, 'gateway.yaml')
  truncateSync(path, 64 * 1024 * 1024 + 1)
  t.throws(() => loadWithoutPlugins(path), { message: /gateway\.yaml: is larger than 64 MB; is it a configuration\?/ })
  writeFileSync(path, 'edge: { validation: { openapi: api.yaml } }')
  truncateSync(join(folder, 'api.yaml'), 16 * 1024 * 1024 + 1)
  t.throws(() => loadWithoutPlugins(path), {
    message: /edge\.validation\.openapi: .*api\.yaml: is larger than 16 MB: write it as JSON/
  })
})
