/** The step before each npm script, on machines with an older Node. */
import { cpSync, readFileSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { runToEnd } from './helpers/processes.ts'

const script = `#!/bin/sh
case "$1" in
  --version) echo "v$VERSION" ;;
  *) [ "\${VERSION%%.*}" -ge 24 ] && echo true || echo false ;;
esac
`

/** A checkout whose packages are installed, but for that of Node, on a machine whose `node` has this version. */
async function deps(t: Test, version: string) {
  const folder = t.testdir({
    'package-lock.json': '{}',
    node_modules: { '.package-lock.json': '{}', '.bin': {} },
    bin: {}
  })
  cpSync(join(import.meta.dirname, '../.ci/deps'), join(folder, '.ci/deps'))
  utimesSync(join(folder, 'package-lock.json'), 1, 1)
  const run = `printf '%s' '${script}' > bin/node && chmod +x bin/node && PATH="$PWD/bin:/usr/bin:/bin" .ci/deps`
  return runToEnd('sh', ['-c', `cd ${folder} && ${run}`], { env: { ...process.env, VERSION: version } })
}

t.test('an older Node is reported if the package of Node is not installed', async (t) => {
  const { code, stdout, stderr } = await deps(t, '20.20.2')
  t.strictSame({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /^Jingwei needs Node 24 or newer; this is v20\.20\.2, .* \(ERR_UNKNOWN_FILE_EXTENSION\)\.\n/)
  t.match(stderr, '\nInstall a newer Node, or let `npm ci` install one')
})

t.test('Node 24 suffices without the package of Node', async (t) => {
  t.strictSame(await deps(t, '24.0.0'), { code: 0, stdout: '', stderr: '' })
})

t.test('the message of the command names the Node that it needs', async (t) => {
  const versions = '{ ...process.versions, node: "20.20.2" }'
  const pretend = `data:text/javascript,Object.defineProperty(process, "versions", { value: ${versions} })`
  const bin = join(import.meta.dirname, '../plugins/bin.ts')
  const { code, stdout, stderr } = await runToEnd(process.execPath, ['--import', pretend, bin, '--version'])
  t.strictSame({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /^jingwei needs Node 24\.2 or newer; this is v[\d.]+, \//)
  const { engines } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'))
  t.equal(engines.node, '>=24.2', 'package.json has the same version')
})
