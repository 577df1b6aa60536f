/** A concern is in one place: without its files and its line in the list of its half, the rest compiles, lints and runs. */
import { cp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from './helpers/processes.ts'

const home = join(import.meta.dirname, '..')

t.test('one concern of each half is deleted from a copy', { timeout: 240_000 }, async (t) => {
  const copy = t.testdir({})
  for (const name of ['app.ts', 'config', 'plugins', 'routes', 'package.json', '.biome.json']) {
    await cp(join(home, name), join(copy, name), { recursive: true })
  }
  // The tests of the deleted concerns would go with them; those that stay are run below.
  const tsconfig = JSON.parse(await readFile(join(home, 'tsconfig.json'), 'utf8')) as object
  await writeFile(
    join(copy, 'tsconfig.json'),
    JSON.stringify({ ...tsconfig, include: ['app.ts', 'config', 'plugins', 'routes'] })
  )
  await symlink(join(home, 'node_modules'), join(copy, 'node_modules'))
  for (const [folder, list] of [
    ['plugins/edge/concerns/jwt', 'plugins/edge/index.ts'],
    ['plugins/mesh/concerns/hedge', 'plugins/mesh/chain.ts']
  ] as const) {
    const name = folder.split('/').at(-1)!
    const lines = (await readFile(join(copy, list), 'utf8')).split('\n')
    const isOf = (line: string) => line.includes(`/concerns/${name}/`) || new RegExp(`^  ${name},`).test(line)
    t.equal(lines.filter(isOf).length, 2, `${list} has its import and one line`)
    await writeFile(join(copy, list), lines.filter((line) => !isOf(line)).join('\n'))
    await rm(join(copy, folder), { recursive: true })
  }
  // The test runner gives its loaders to every child; compilers do without.
  const bare = 'unset NODE_OPTIONS; exec "$0" "$@"'
  const run = (tool: string, args: string[]) =>
    runToEnd('/bin/sh', ['-c', bare, process.execPath, join(home, 'node_modules', tool), ...args], { timeout: 120_000 })
  t.match(await run('typescript/bin/tsc', ['-p', join(copy, 'tsconfig.json')]), { code: 0, stdout: '' }, 'it compiles')
  const lint = ['lint', `--config-path=${join(copy, '.biome.json')}`, '--vcs-enabled=false', copy]
  t.match(await run('@biomejs/biome/bin/biome', lint), { code: 0 }, 'it lints')

  const yaml = `
admin: false
services: { a: { instances: [http://127.0.0.1:1] } }
routes: [{ name: one, service: a, match: { path: / }, edge: { cors: { origin: '*' } }, mesh: { retry: {} } }]
`
  const file = join(copy, 'gateway.yaml')
  await writeFile(file, yaml)
  const main = (args: string[]) => runToEnd(process.execPath, [join(copy, 'app.ts'), ...args])
  t.match(await main(['check', file]), { code: 0, stdout: /ok, 1 route/ })
  const routes = await main(['routes', file])
  t.match(routes.stdout, /cors → websocket/)
  t.notMatch(routes.stdout, /jwt|hedge/)
  await writeFile(file, yaml.replace('mesh: {', 'mesh: { hedge: {},'))
  t.match(await main(['check', file]), { code: 1, stderr: /routes\[0\]\.mesh\.hedge: unknown key/ })
  t.notMatch((await main(['--help'])).stdout, /token/, 'its command is gone, too')
})
