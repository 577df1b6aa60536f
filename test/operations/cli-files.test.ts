// slow: takes about 15 s
/** The file that a command reads: relative to the folder where it was called, also by npm. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const home = join(import.meta.dirname, '../..')
const dir = t.testdir({ 'mine.yaml': '{}' })
mkdirSync(join(dir, 'below'))
const file = join(dir, 'mine.yaml')

/** The start script as npm calls it: without its pre-script, which would install packages. */
const byNpm = (args: string) => `npm --silent --ignore-scripts --prefix ${home} start -- ${args}`

async function within(folder: string, command: string) {
  const { INIT_CWD: _calledIn, npm_package_json: _script, JINGWEI_CONFIG: _config, ...env } = process.env
  return runToEnd('bash', ['-c', `cd ${folder} && ${command}`], { env })
}

t.test('a relative path is resolved against the folder of the caller', async (t) => {
  const ok = { code: 0, stdout: `${file}: ok, 0 routes, 0 services\n` }
  t.match(await within(dir, byNpm('check mine.yaml')), ok, 'npm start -- check FILE')
  t.match(await within(dir, `JINGWEI_CONFIG=mine.yaml ${byNpm('check')}`), ok, 'npm start with JINGWEI_CONFIG')
  t.match(await within(join(dir, 'below'), `node ${home}/app.ts check ../mine.yaml`), ok, 'node app.ts check FILE')
  t.match(await within(dir, `node ${home}/app.ts check -c mine.yaml`), ok, 'node app.ts --config FILE')
  t.match(await within(home, byNpm('check config/gateway.yaml')), { code: 0, stdout: /config\/gateway\.yaml: ok/ })
})

t.test('a missing file is reported with its absolute path', async (t) => {
  const { code, stderr } = await within(dir, byNpm('check config/gateway.yaml'))
  t.equal(code, 1)
  t.ok(stderr.startsWith(`${join(dir, 'config/gateway.yaml')}: no such file`), stderr)
})

t.test('a script of another package can call the gateway with a relative path', async (t) => {
  const check = `cd gw && node ${home}/app.ts check mine.yaml`
  const other = t.testdir({ 'package.json': JSON.stringify({ scripts: { check } }), gw: { 'mine.yaml': '{}' } })
  const { code, stdout } = await within(other, 'npm --silent run check')
  t.equal(code, 0)
  t.ok(stdout.startsWith(`${join(other, 'gw/mine.yaml')}: ok`), stdout)
})

t.test('check reads certificates, too', async (t) => {
  const tls = t.testdir({ 'x.pem': 'nothing', 'gateway.yaml': 'listen: { tls: { cert: x.pem, key: x.pem } }' })
  const { code, stdout, stderr } = await within(tls, `node ${home}/app.ts check gateway.yaml`)
  t.strictSame({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /gateway\.yaml:1:\d+: listen\.tls\.cert: .*x\.pem contains no certificate\n/)
})
