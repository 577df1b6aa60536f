// slow: takes about 10 s
/** Large files are loaded without blocking the event loop, and as small ones are. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { loadConfig, parseConfig } from '../../plugins/config.ts'
import { manyRoutes } from '../helpers/large-config.ts'
import { cpuMs, longestStretch } from '../helpers/loop-stretches.ts'

const large = manyRoutes(1000)

t.test('a file of 1,000 routes does not block the event loop', async (t) => {
  const file = join(t.testdir({ 'gateway.yaml': large }), 'gateway.yaml')
  // Warm: a gateway that reloads has loaded a file before.
  await loadConfig(file, {})
  const before = cpuMs()
  const config = parseConfig(large, file, {})
  const inOnePiece = cpuMs() - before
  const { result, longest } = await longestStretch(() => loadConfig(file, {}))
  t.ok(longest < inOnePiece / 3, `longest stretch ${longest} ms, in one piece ${inOnePiece} ms`)
  t.strictSame(result, config)
  t.ok(Object.isFrozen(result) && Object.isFrozen(result.routes[999]!.edge) && Object.isFrozen(result.services))
})

t.test('faults in large files are reported as in small ones', async (t) => {
  const file = join(t.testdir({}), 'gateway.yaml')
  const kinds = {
    'malformed YAML': `${large}  - { name: last, match: [ }\n`,
    'a second document': `${large}---\na: 1\n`,
    'a duplicate key': `${large}listen: { port: 1 }\n`,
    'unknown keys': `${large}  - { name: last, service: service-1, match: { path: /last }, edgy: {}, edge: { jwt: { isuer: x } } }\n`,
    'an unknown service': `${large}  - { name: last, service: service-x, match: { path: /last } }\n`,
    'a variable that is not set': `${large}  - { name: "\${NO_SUCH}", service: service-1, match: { path: /last } }\n`,
    'an unknown alias': `${large}  - *route\n`,
    'items of the wrong kind': `${large}  - 7\n  -\n`,
    'a missing key': `${large}  - { service: service-1 }\n`,
    'routes that conflict': `${large}  - { name: last, service: service-1, match: { path: /api/1, hosts: [api.example.com], methods: [GET] } }\n`
  }
  for (const [kind, text] of Object.entries(kinds)) {
    writeFileSync(file, text)
    const expected = failure(() => parseConfig(text, file, {}))
    const found = await loadConfig(file, {}).then(() => t.fail(`${kind}: no fault`), String)
    t.equal(found, expected, kind)
  }
})

function failure(code: () => unknown): string {
  try {
    code()
  } catch (error) {
    if (error instanceof ConfigError) return String(error)
    throw error
  }
  throw new Error('no fault')
}
