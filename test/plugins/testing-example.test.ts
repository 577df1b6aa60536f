// slow: starts node --test
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const home = resolve(import.meta.dirname, '../..')

t.test('the example of the guide passes in node:test', async (t) => {
  const guide = readFileSync(`${home}/plugins/README.md`, 'utf8')
  const [, example] = /```ts\n(\/\/ test\n[\s\S]*?)```/.exec(guide)!
  const secret = '$'.concat('{JWT_SECRET}')
  const gateway = {
    discovery: { consul: { url: 'http://consul.invalid:8500' } },
    edge: { jwt: { secret } },
    services: { orders: {} },
    routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders' }]
  }
  const folder = t.testdir({
    'gateway.yaml': JSON.stringify(gateway),
    'example.test.ts': example!.replace("'jingwei/testing'", `'${home}/plugins/testing/index.ts'`)
  })
  // The test runner gives its loaders to every child.
  const env = { ...process.env, NODE_OPTIONS: '' }
  const { code, stdout } = await runToEnd(process.execPath, ['--test', 'example.test.ts'], { cwd: folder, env })
  t.equal(code, 0, stdout)
  t.match(stdout, /pass 1/)
})
