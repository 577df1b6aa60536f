// slow: starts the command line several times
/** The command `import`: its output, and mistakes in its arguments. */
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')
const folder = t.testdir({
  'kong.yml':
    'services: [{ name: a, url: "http://127.0.0.1:9", routes: [{ paths: [/a] }], plugins: [{ name: aws-lambda }] }]',
  'broken.yml': 'services: [{ name: a, url: 7 '
})
const jingwei = (command: string) =>
  runToEnd('bash', ['-c', `cd ${folder} && ${command.replaceAll('jingwei', `node ${app}`)}`])

t.test('the configuration goes to stdout, the summary to stderr, and the configuration passes check', async (t) => {
  const { code, stderr } = await jingwei('jingwei import kong kong.yml > gateway.yaml')
  t.equal(code, 0)
  t.match(stderr, 'Kong: wrote 1 route, 1 service\n1 left to do by hand:\n- plugin aws-lambda: not converted\n')
  t.match(await jingwei('jingwei check gateway.yaml'), { code: 0, stdout: /ok, 1 route, 1 service/ })
  t.match((await jingwei('jingwei explain gateway.yaml GET /a/x')).stdout, /forwards +\/x\n/)
})

t.test('mistakes are reported', async (t) => {
  const cases: [command: string, message: RegExp][] = [
    ['import', /import takes a gateway \(kong, traefik, apisix, krakend\) and a file, such as: import kong kong\.yml/],
    ['import kong', /import takes a gateway/],
    ['import tyk kong.yml', /expected one of kong, traefik, apisix, krakend, found "tyk"/],
    ['import kong none.yml', /ENOENT: no such file or directory, open '.*none\.yml'/],
    ['import kong broken.yml', /broken\.yml/],
    ['import kong kong.yml more', /import: unexpected argument "more"/],
    ['import kong kong.yml -c x.yaml', /import takes no option "--config": it writes a configuration/]
  ]
  for (const [command, message] of cases) {
    const { code, stdout, stderr } = await jingwei(`jingwei ${command}`)
    t.strictSame([code, stdout], [1, ''], command)
    t.match(stderr, message, command)
  }
})
