// slow: starts the command line several times
/** The command `import`: its output, and mistakes in its arguments. */
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')
const folder = t.testdir({
  'kong.yml':
    'services: [{ name: a, url: "http://127.0.0.1:9", routes: [{ paths: [/a] }], plugins: [{ name: aws-lambda }] }]',
  'traefik.yml': `http: { routers: { r: { rule: "PathPrefix(\`/a\`)", service: s } }, services: { s: { loadBalancer: { servers: [{ url: "https://s" }], serversTransport: t } } }, serversTransports: { t: { rootCAs: ["-----BEGIN CERTIFICATE-----"] } } }`,
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

t.test('files to which the configuration refers are written, and none is replaced', async (t) => {
  t.match((await jingwei('jingwei import traefik traefik.yml')).stderr, '\nWrote t-ca.pem, to which')
  t.match(await jingwei('stat -c %a t-ca.pem; cat t-ca.pem'), { stdout: '600\n-----BEGIN CERTIFICATE-----\n' })
  t.match((await jingwei('jingwei import traefik traefik.yml')).stderr, 't-ca.pem is there already')
  const { code, stderr } = await jingwei('echo x > t-ca.pem && jingwei import traefik traefik.yml')
  t.match(stderr, 't-ca.pem exists with other content and was not replaced')
  t.equal(code, 0)
  t.match(await jingwei('cat t-ca.pem'), { stdout: /^x\n$/ })
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
