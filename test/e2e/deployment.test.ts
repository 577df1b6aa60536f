// No container engine runs here: docker-compose.yml and the Dockerfile are read and compared with the checkout,
// and the mounted configurations are tested with the real programs.
import { existsSync, globSync } from 'node:fs'
import { cp, readFile, symlink } from 'node:fs/promises'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { CORE_SCHEMA, load, mergeTag } from 'js-yaml'
import t from 'tap'
import { parseDuration } from '../../config/units.ts'
import { loadWithoutPlugins } from '../../plugins/config.ts'
import { gatewayConfig } from '../cluster/cluster.ts'
import { haproxyCheck } from '../helpers/haproxy.ts'
import { freePorts, runToEnd, start } from '../helpers/processes.ts'
import { promtool } from '../helpers/prometheus.ts'

const home = join(import.meta.dirname, '../..')
const read = (path: string) => readFile(join(home, path), 'utf8')

interface Service {
  image: string
  build?: string
  command?: string[]
  environment?: Record<string, string>
  depends_on?: Record<string, { condition: string }>
  healthcheck?: { test: string[] }
  ports?: string[]
  volumes?: string[]
  networks?: { default: { ipv4_address: string } }
  restart: string
  stop_grace_period?: string
  deploy?: { replicas: number }
}

/** The part of the Compose Specification that the file uses, and nothing else: no `privileged`, no host network. */
const text = { type: 'string' }
const duration = { type: 'string', pattern: '^\\d+(ms|s|m)$' }
const words = { type: 'array', items: text, minItems: 1 }
const object = (properties: object, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false
})
const map = (values: object) => ({ type: 'object', additionalProperties: values })
const serviceSchema = object(
  {
    image: { type: 'string', pattern: '^([a-z/-]+:[\\w.-]+|jingwei)$' },
    build: { const: '.' },
    command: words,
    environment: map(text),
    depends_on: map(object({ condition: { enum: ['service_healthy', 'service_started'] } }, ['condition'])),
    healthcheck: object({ test: words, interval: duration, timeout: duration, retries: { type: 'integer' } }, ['test']),
    ports: { type: 'array', items: { type: 'string', pattern: '^127\\.0\\.0\\.1:\\d+:\\d+$' } },
    volumes: words,
    networks: object({ default: object({ ipv4_address: { type: 'string', pattern: '^172\\.30\\.0\\.\\d+$' } }) }),
    restart: { const: 'unless-stopped' },
    stop_grace_period: duration,
    init: { type: 'boolean' },
    hostname: text,
    read_only: { type: 'boolean' },
    cap_drop: words,
    security_opt: words,
    deploy: object({ replicas: { type: 'integer', minimum: 1 } })
  },
  ['image', 'restart']
)
const ipam = object({ config: { type: 'array', items: object({ subnet: text, ip_range: text }) } })
const composeSchema = {
  ...object(
    { name: text, services: map(serviceSchema), networks: map(object({ ipam })), volumes: map({ type: 'null' }) },
    ['name', 'services']
  ),
  patternProperties: { '^x-': serviceSchema }
}

const compose = load(await read('docker-compose.yml'), { schema: CORE_SCHEMA.withTags(mergeTag) }) as {
  services: Record<string, Service>
  volumes: Record<string, null>
}
const { services } = compose
const named = (name: string) => services[name]!
const dockerfile = await read('Dockerfile')
const withinImage = dockerfile.includes('HEALTHCHECK')

t.test('docker-compose.yml conforms to the specification', async (t) => {
  const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(composeSchema)
  validate(compose)
  t.same(validate.errors, null)
  t.match(Object.keys(services).sort(), [
    'consul', 'gateway-1', 'gateway-2', 'grafana', 'haproxy', 'orders', 'products', 'prometheus', 'redis', 'users'
  ]) // biome-ignore format: a list
  t.equal(named('orders').deploy?.replicas, 2)

  for (const [name, service] of Object.entries(services)) {
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      t.ok(services[other], `${name} depends on ${other}`)
      const healthy = named(other).healthcheck !== undefined || (named(other).build !== undefined && withinImage)
      t.ok(condition !== 'service_healthy' || healthy, `${other} has a health check`)
    }
    for (const volume of service.volumes ?? []) {
      const [source, target, mode] = volume.split(':') as [string, string, string | undefined]
      t.ok(target.startsWith('/'))
      if (!source.startsWith('.')) t.ok(Object.hasOwn(compose.volumes, source), `${source} is declared`)
      else t.ok(existsSync(join(home, source)) && mode === 'ro', `${name} mounts ${source}, which exists, to read`)
    }
    t.ok(service.healthcheck ?? service.build, `${name} has a health check`)
    t.ok(!/:latest$/.test(service.image))
  }
  const published = Object.entries(services).filter(([, service]) => service.ports)
  t.same(published.map(([name]) => name).sort(), ['consul', 'grafana', 'haproxy', 'prometheus'])
})

t.test('the gateways get all environment variables that their configuration requires', async (t) => {
  const { environment, stop_grace_period: grace } = named('gateway-1')
  t.same(named('gateway-2').environment, environment, 'the nodes differ only in their names')
  const source = await readFile(gatewayConfig, 'utf8')
  const used = new Set([...source.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!))
  t.same([...used].sort(), Object.keys(environment!).sort())

  const given = Object.entries(environment!).map(([name, value]) => [name, fromShell(value)])
  const config = loadWithoutPlugins(gatewayConfig, Object.fromEntries(given) as NodeJS.ProcessEnv)
  t.match(config.admin, { host: '0.0.0.0', port: 8081 })
  t.match(config.listen, { host: '0.0.0.0', port: 8080, trustProxy: [named('haproxy').networks!.default.ipv4_address] })
  t.ok(services[new URL(config.discovery.consul!.url).hostname])
  t.ok(services[new URL(config.redis!.url).hostname])
  const { delay, timeout } = config.listen.drain
  t.ok(parseDuration(grace!)! > delay + timeout, 'the grace period is longer than a drain')
})

/** `${NAME:-default}` without variables, and a value for `${NAME:?message}`, which is required. */
function fromShell(value: string): string {
  return value.replace(/\$\{\w+:-([^}]*)\}/g, '$1').replace(/\$\{\w+:\?[^}]*\}/g, 'x'.repeat(32))
}

t.test('the image does not start without its own secret', async (t) => {
  t.match(named('gateway-1').environment!.JWT_SECRET, /^\$\{JWT_SECRET:\?/)
  for (const JWT_SECRET of [undefined, '', 'too short']) {
    t.throws(() => loadWithoutPlugins(gatewayConfig, { ...(JWT_SECRET !== undefined && { JWT_SECRET }) }), {
      name: 'ConfigError',
      faults: [{ path: 'routes[2].edge.jwt.secret' }]
    })
  }
})

t.test('HAProxy accepts its configuration with the environment of compose', async (t) => {
  const { environment } = named('haproxy')
  const source = await read('config/haproxy/haproxy.cfg')
  const used = new Set([...source.matchAll(/"\$\{(\w+)/g)].map(([, name]) => name!))
  t.same([...used].sort(), Object.keys(environment!).sort())
  t.match(await haproxyCheck(join(home, 'config/haproxy/haproxy.cfg'), environment), { code: 0 })
  for (const node of ['1', '2']) {
    t.equal(environment![`GATEWAY_${node}`], `gateway-${node}:${named('gateway-1').environment!.PORT}`)
    t.equal(environment![`GATEWAY_${node}_ADMIN`], named('gateway-1').environment!.ADMIN_PORT)
  }
})

t.test('Prometheus accepts its configuration and rules, and scrapes both nodes', async (t) => {
  t.match(await promtool(['check', 'config', join(home, 'config/prometheus/prometheus.yml')]), { code: 0 })
  const targets = load(await read('config/prometheus/targets.yml')) as { targets: string[] }[]
  t.same(
    targets.flatMap((entry) => entry.targets),
    ['gateway-1:8081', 'gateway-2:8081']
  )
})

t.test('Grafana finds the data source and the dashboards', async (t) => {
  const folder = 'config/grafana/provisioning'
  const { datasources } = load(await read(`${folder}/datasources/prometheus.yaml`)) as {
    datasources: { url: string }[]
  }
  t.ok(services[new URL(datasources[0]!.url).hostname])
  const { providers } = load(await read(`${folder}/dashboards/jingwei.yaml`)) as {
    providers: { options: { path: string } }[]
  }
  const { path } = providers[0]!.options
  t.ok(named('grafana').volumes!.includes(`./config/grafana/dashboards:${path}:ro`))
  t.equal(named('grafana').environment!.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH, `${path}/jingwei.json`)
})

t.test('alerts fire when they should, and only then', async (t) => {
  const series = (name: string, values: string) => ({ series: name, values })
  const node = 'instance="gateway-1",job="jingwei"'
  const tests = {
    rule_files: [join(home, 'config/prometheus/alerts.yml')],
    evaluation_interval: '30s',
    tests: [
      {
        interval: '30s',
        input_series: [
          series(`up{${node}}`, '1x10 0x20'),
          series('up{instance="gateway-2",job="jingwei"}', '1x60'),
          series(`jingwei_mesh_discovery_up{${node},service="orders"}`, '1x60'),
          series(`jingwei_mesh_discovery_up{${node},service="users"}`, '0x60'),
          series(`jingwei_mesh_discovery_age_seconds{${node},service="orders"}`, '1x60'),
          series(`jingwei_mesh_instances{${node},service="orders",state="available"}`, '2x60'),
          series(`jingwei_mesh_instances{${node},service="users",state="available"}`, '0x60'),
          series(`jingwei_edge_requests_total{${node},route="orders",status="200"}`, '0+90x60'),
          series(`jingwei_edge_requests_total{${node},route="orders",status="503"}`, '0+10x60'),
          series(`jingwei_edge_requests_total{${node},route="users",status="200"}`, '0+98x60'),
          series(`jingwei_edge_requests_total{${node},route="users",status="503"}`, '0+2x60'),
          series(`jingwei_mesh_attempts_total{${node},service="orders",outcome="success"}`, '0+80x60'),
          series(`jingwei_mesh_retries_total{${node},service="orders",reason="503"}`, '0+20x60'),
          series(`jingwei_edge_key_set_up{${node},url="https://id.example.com/jwks.json"}`, '1x20 0x20'),
          series(`jingwei_edge_redis_up{${node}}`, '1x20 0x20')
        ]
      }
    ]
  }
  // Alerts that fire at a time. promtool compares annotations too, so the query is for the series ALERTS.
  const firing = (at: string, names: string[]) => ({
    expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
    eval_time: at,
    exp_samples: names.map((name) => ({ labels: `{alertname="${name}"}`, value: 1 }))
  })
  const early = ['NoInstances']
  const later = ['DiscoveryDown', 'GatewayNotReady', 'HighErrorRatio', 'ManyRetries', 'NoInstances']
  const last = [
    'DiscoveryDown',
    'GatewayDown',
    'GatewayNotReady',
    'HighErrorRatio',
    'ManyRetries',
    'NoInstances',
    'RedisDown',
    'KeySetUnavailable'
  ]
  Object.assign(tests.tests[0]!, {
    promql_expr_test: [firing('1m30s', early), firing('6m', later), firing('13m', last)]
  })
  const folder = t.testdir({ 'tests.json': JSON.stringify(tests) })
  const ran = await promtool(['test', 'rules', join(folder, 'tests.json')])
  t.equal(ran.code, 0, ran.stdout + ran.stderr)
})

/** The files that a stage of the Dockerfile copies: from the checkout, or from another stage. */
function copiedBy(stage: string) {
  const lines = [...stage.matchAll(/^COPY (?:--from=(\w+) \/app\/)?(.+) (\S+)$/gm)]
  return lines.flatMap(([, from, sources]) => sources!.split(' ').map((source) => ({ from, source })))
}

t.test('the image has all that it runs, and needs no development dependency', async (t) => {
  const [build = '', dependencyStage = '', image = ''] = dockerfile.split(/^(?=FROM )/m).slice(1)
  const root = t.testdir({ build: {}, image: {} })
  const [buildFolder, folder] = [join(root, 'build'), join(root, 'image')]
  const copied = [...copiedBy(build), ...copiedBy(dependencyStage), ...copiedBy(image)]
    .filter(({ from }) => from === undefined)
    .map(({ source }) => source)
  for (const { source } of copiedBy(build)) await cp(join(home, source), join(buildFolder, source), { recursive: true })
  await symlink(join(home, 'node_modules'), join(buildFolder, 'node_modules'))
  const [, script] = /^RUN node (\S+)$/m.exec(build)!
  // The test runner gives its loaders to every child, with which the compiler does not start.
  const bare = ['-c', 'unset NODE_OPTIONS; exec "$0" "$@"', process.execPath]
  const built = await runToEnd('/bin/sh', [...bare, join(buildFolder, script!)], { timeout: 120_000 })
  t.match(built, { code: 0, stderr: '' })
  const stages: Record<string, string> = { build: buildFolder, dependencies: home }
  for (const { from, source } of copiedBy(image)) {
    if (source === 'node_modules') await symlink(join(home, source), join(folder, source))
    else await cp(join(from === undefined ? home : stages[from]!, source), join(folder, source), { recursive: true })
  }

  const { dependencies } = JSON.parse(await read('package.json')) as { dependencies: Record<string, string> }
  const allowed = new Set([...Object.keys(dependencies), ...builtinModules])
  for (const file of globSync('dist/**/*.js', { cwd: folder })) {
    const source = await readFile(join(folder, file), 'utf8')
    for (const [, ...specifiers] of source.matchAll(
      /^(?:import|export) [^']*from '([^'.][^']*)'|\bimport\('([^'.][^']*)'\)/gm
    )) {
      const specifier = specifiers.find((each) => each !== undefined)
      const name = specifier!
        .split('/')
        .slice(0, specifier!.startsWith('@') ? 2 : 1)
        .join('/')
      t.ok(specifier!.startsWith('node:') || allowed.has(name), `${file} imports ${specifier}`)
    }
  }

  const ignored = (await read('.dockerignore')).split('\n')
  t.ok(ignored.includes('*'))
  for (const source of copied) t.ok(ignored.includes(`!${source.replace(/^\.\//, '')}`), `${source} reaches the build`)
  t.match(dockerfile, /^USER node$/m)
  t.match(dependencyStage, /npm ci --omit=dev /)

  const command = JSON.parse(/^CMD (\[.*\])$/m.exec(dockerfile)![1]!) as string[]
  t.equal(command[0], 'node')
  const [port, admin] = await freePorts(2)
  const env = {
    ...process.env,
    JWT_SECRET: 'x'.repeat(32),
    PORT: `${port}`,
    ADMIN_PORT: `${admin}`,
    DRAIN_DELAY: '0s',
    CONSUL_URL: 'http://127.0.0.1:1',
    REDIS_URL: 'redis://127.0.0.1:1'
  }
  const health = JSON.parse(/HEALTHCHECK [^[]*CMD (\[.*\])$/m.exec(dockerfile)![1]!) as string[]
  const check = () => runToEnd(process.execPath, health.slice(1), { env })
  t.match(await check(), { code: 1 }, 'the health check fails while nothing runs')
  const gateway = await start({
    command: process.execPath,
    args: command.slice(1),
    cwd: folder,
    env,
    ready: async () => (await fetch(`http://127.0.0.1:${admin}/health/live`)).ok
  })
  t.teardown(gateway.stop)
  t.match(await check(), { code: 0 }, 'the health check passes once the gateway runs')

  const [, service] = named('orders').command!
  const help = await runToEnd(process.execPath, [service!, '--nonsense'], { cwd: folder, env })
  t.match(help, { code: 1, stderr: /Unknown option '--nonsense'/ }, 'the example service is in the image')
})

t.test('the example services start with the commands of compose', async (t) => {
  for (const name of ['orders', 'products', 'users']) {
    const [node, file, ...args] = named(name).command!
    t.equal(node, 'node')
    t.same(args, ['--name', name, '--host', '0.0.0.0', '--port', '9000'])
    t.equal(file, 'dist/config/examples/service.js')
  }
  const [, built] = named('orders').command!
  const file = built!.replace('dist/', '').replace('.js', '.ts')
  const [port] = await freePorts(1)
  const service = await start({
    command: process.execPath,
    args: [join(home, file), '--name', 'orders', '--host', '0.0.0.0', '--port', `${port}`],
    env: { ...process.env, CONSUL_URL: 'http://127.0.0.1:1' },
    ready: /cannot register in Consul yet/
  })
  t.teardown(service.stop)
  const [node, flag, script] = named('orders').healthcheck!.test.slice(1) as [string, string, string]
  t.equal(node, 'node')
  const check = await runToEnd(process.execPath, [flag, script.replace(':9000', `:${port}`)], { env: process.env })
  t.equal(check.code, 0, 'the health check of the service passes without Consul')
})
