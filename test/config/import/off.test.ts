/** Routes, services and plugins that are off in the other gateway; stripped paths of Kong, names of limits, spans. */
import { load } from 'js-yaml'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import { parseConfig } from '../../../plugins/config.ts'

function configOf(gateway: string, text: string) {
  const { yaml, summary } = imported(gateway, text)
  return { config: parseConfig(`listen: { port: 0 }\n${yaml}`, '/gateway.yaml', {}), yaml, summary }
}

t.test('Kong: services, routes, consumers, targets and plugins with enabled: false', async (t) => {
  const { config, summary, yaml } = configOf(
    'kong',
    `
services:
  - { name: old, url: "http://old", enabled: false, routes: [{ name: old-inner, paths: [/old] }], plugins: [{ name: lua }] }
  - name: shop
    host: pool
    plugins: [{ name: key-auth, enabled: false, config: { key_names: [k] } }]
    routes: [{ name: live, paths: [/live] }, { name: dead, paths: [/dead], enabled: false, plugins: [{ name: cors }] }]
routes: [{ name: old-loose, service: old, paths: [/loose] }]
plugins:
  - { name: acl, service: old, config: { allow: [x] } }
  - { name: acl, route: dead, config: { allow: [x] } }
  - { name: acl, route: old-loose, config: { allow: [x] } }
upstreams: [{ name: pool, targets: [{ target: "10.0.0.1:80" }, { target: "10.0.0.2:80", enabled: false }, { target: "10.0.0.3:80", weight: 0 }] }]
consumers: [{ username: eve, enabled: false, keyauth_credentials: [{ key: k }] }, { username: bob }]
keyauth_credentials: [{ consumer: eve, key: k2 }]
`
  )
  t.same(
    config.routes.map(({ name }) => name),
    ['live']
  )
  t.same(Object.keys(config.services), ['shop'])
  t.same(config.services.shop!.instances, ['http://10.0.0.1:80'])
  t.match(config.consumers, { list: [{ name: 'bob' }] })
  t.equal(config.routes[0]!.edge.keyAuth, undefined)
  for (const each of ['service old', 'route dead', 'consumer eve', 'plugin key-auth', '10.0.0.2:80', '10.0.0.3:80']) {
    t.match(summary, `${each} is off`)
    t.match(yaml, new RegExp(`# .*${each} is off`))
  }
  t.notMatch(summary, /old-loose|lua|acl|keyauth_credentials/)
  const all = imported(
    'kong',
    'services: [{ name: a, host: p, routes: [{ paths: [/] }] }]\nupstreams: [{ name: p, targets: [{ target: "a:80", weight: 0 }] }]'
  )
  t.match((load(all.yaml) as { services: object }).services, { a: { todo: [/all targets are off/] } })
})

t.test('APISIX: routes with status 0, plugins with _meta.disable', async (t) => {
  const { config, summary } = configOf(
    'apisix',
    `
routes:
  - { id: 1, name: dead, uri: /dead, status: 0, upstream: { nodes: { "a:80": 1 } } }
  - { id: 2, name: live, uri: /live, status: 1, upstream: { nodes: { "a:80": 1 } }, plugins: { cors: { _meta: { disable: true } } } }
`
  )
  t.same(
    config.routes.map(({ name }) => name),
    ['live']
  )
  t.equal(config.routes[0]!.edge.cors, undefined)
  t.match(summary, 'route dead is off (status: 0)')
  t.match(summary, 'plugin cors is off')
})

t.test('Kong: prefixes and expressions of one route are stripped alike', async (t) => {
  const pathOf = (paths: string) =>
    configOf('kong', `services: [{ name: a, url: "http://a/base", routes: [{ paths: ${paths} }] }]`).config.routes[0]!
      .path
  t.match(pathOf("[/shop, '~/items/(?<id>\\d+)$']"), {
    rewrite: { regex: '^(?:/items/(\\d+)|(?:/shop)/?(.*))$', to: '/$2' }
  })
  t.match(pathOf("['~/v/(\\d+)']"), { rewrite: { regex: '^(?:(?:/v/(\\d+))/?(.*))$', to: '/$2' } })
  t.match(pathOf("['~/health$']"), { rewrite: { regex: '^(?:/health)$', to: '/' } })
  t.match(pathOf('[/a, /b]'), { strip: true })
  const { yaml } = imported('kong', 'services: [{ name: a, url: "http://a", routes: [{ paths: [/x, \'~/a++$\'] }] }]')
  t.match((load(yaml) as { routes: object[] }).routes[0], { todo: [/a\+\+/, /strip_path: write path/] })
})

t.test('limits have a name only where routes share them', async (t) => {
  const namesOf = (routes: string) =>
    configOf(
      'kong',
      `services: [{ name: a, url: "http://a", routes: ${routes}, plugins: [{ name: rate-limiting, config: { minute: 5 } }] }]`
    ).config.routes.map(({ edge }) => (edge.rateLimit as { name?: string }).name)
  t.same(namesOf('[{ paths: [/a] }, { paths: [/b] }]'), ['a-limit', 'a-limit'])
  t.same(namesOf('[{ paths: [/a] }]'), [undefined])
  t.same(namesOf('[{ paths: [/a], plugins: [{ name: key-auth }] }, { paths: [/b] }]'), [undefined, undefined])
})

t.test('APISIX: routes without id, names in vars that are searched, variables in uri', async (t) => {
  const nodes = 'upstream: { nodes: { "a:80": 1 } }'
  const { config } = configOf(
    'apisix',
    `routes: [{ uri: /a, ${nodes} }, { uri: /b, ${nodes}, vars: [[http_x, "~~", "a+"], [arg_y, "~~", "^b|c$"], [cookie_z, "~~", "^d$"]] }]`
  )
  t.equal(config.routes.length, 2)
  t.match(config.routes[1]!.match, {
    headers: { x: { regex: '^.*a+.*$' } },
    query: { y: { regex: '^(?:b.*|.*c)$' } },
    cookies: { z: { regex: '^d$' } }
  })
  const withGroups = `routes: [{ uri: /a, ${nodes}, vars: [[http_x, "~~", "^(a|b)$"], [arg_y, "~~", "^(a)|b$"]] }]`
  const text = imported('apisix', withGroups).yaml
  t.match((load(text) as { routes: object[] }).routes[0], {
    match: { headers: { x: { regex: '^(a|b)$' } }, query: { y: { regex: '^(?:(a).*|.*b)$' } } }
  })
  const { yaml } = imported(
    'apisix',
    `routes: [{ id: 1, uri: /a, ${nodes}, plugins: { proxy-rewrite: { uri: "/x/$arg_id" } } }]`
  )
  t.match((load(yaml) as { routes: object[] }).routes[0], { todo: [/uri \/x\/\$arg_id: write path/] })
})

t.test('Kong: opentelemetry for all routes', async (t) => {
  const of = (plugin: string) =>
    configOf(
      'kong',
      `services: [{ name: a, url: "http://a", routes: [{ paths: [/] }] }]\nplugins: [{ name: opentelemetry, config: ${plugin} }]`
    )
  const { config } = of(
    '{ traces_endpoint: "http://c:4318/v1/traces", headers: { X-Key: k }, sampling_rate: 0.5, resource_attributes: { service.name: gw, team: a } }'
  )
  t.match(config.tracing, {
    otlp: { http: { endpoint: 'http://c:4318/v1/traces', headers: { 'X-Key': 'k' } } },
    serviceName: 'gw',
    resourceAttributes: { team: 'a' },
    sampleRate: 0.5
  })
  t.match(
    of('{ endpoint: "http://c:4318/v1/traces", queue: { max_batch_size: 9 } }').summary,
    /config\.queue: not converted/
  )
})
