// slow: takes about 15 s
/** Import of files in which any value is replaced by another one. */
import t from 'tap'
import { ImportFault, imported } from '../../../config/import/index.ts'
import { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'

t.test('a file in which any value is replaced is converted or refused, without another error', async (t) => {
  const plugins = {
    'key-auth': {},
    jwt: { claims_to_verify: ['exp'] },
    cors: { origins: ['https://a.example'] },
    acl: { allow: ['g'] },
    'ip-restriction': { allow: ['10.0.0.0/8'] },
    'rate-limiting': { minute: 5 },
    'request-transformer': { add: { headers: ['a:b'], body: ['a:b'] }, rename: { body: ['a:b'] } },
    'proxy-cache': { response_code: [200] },
    'response-ratelimiting': { limits: { a: { minute: 1 } } },
    'route-by-header': { rules: [{ condition: { a: 'b' }, upstream_name: 'pool' }] }
  }
  const samples: Record<string, object> = {
    kong: {
      services: [
        {
          name: 'a',
          host: 'pool',
          ca_certificates: ['c'],
          routes: [
            { name: 'r', paths: ['/a', '~/b$'], methods: ['GET'], headers: { x: ['1'] } },
            { name: 'e', expression: 'http.path ~ "^/a/(x|y)$" && !(http.host == "b")' }
          ]
        }
      ],
      upstreams: [
        { name: 'pool', targets: [{ target: 'a:1', weight: 1 }], healthchecks: { active: { http_path: '/h' } } }
      ],
      plugins: Object.entries(plugins).map(([name, config]) => ({ name, config })),
      ca_certificates: [{ id: 'c', cert: '-----BEGIN' }],
      certificates: [{ id: 'd', cert: '-----BEGIN', key: '-----BEGIN', snis: [{ name: 'x' }] }],
      consumer_groups: [{ name: 'g', plugins: [{ name: 'rate-limiting', config: { minute: 1 } }] }],
      _info: { defaults: { route: { strip_path: false } } },
      consumers: [
        {
          username: 'c',
          keyauth_credentials: [{ key: 'k' }],
          jwt_secrets: [{ key: 'i', secret: 's' }],
          acls: [{ group: 'g' }]
        }
      ]
    },
    traefik: {
      http: {
        routers: {
          r: { rule: 'Host(`a`) && PathPrefix(`/b`)', service: 's', middlewares: ['m', 'l'], tls: {} },
          w: { rule: 'HostRegexp(`^(a|b)\\.c$`) && Path(`/{d:[a-z]+}`)', service: 'w', middlewares: ['b', 'p', 'q'] }
        },
        middlewares: {
          b: { circuitBreaker: { expression: 'NetworkErrorRatio() > 0.5' } },
          p: { stripPrefix: { prefixes: ['/a'] } },
          q: { addPrefix: { prefix: '/b' } },
          m: { basicAuth: { users: ['a:b'] } },
          l: { rateLimit: { average: 5, period: '1s' } },
          c: { chain: { middlewares: ['m'] } }
        },
        serversTransports: { t: { rootCAs: ['a'], certificates: [{ certFile: 'c', keyFile: 'k' }] } },
        services: {
          w: { weighted: { services: [{ name: 's', weight: 2 }, { name: 'w' }] } },
          s: {
            loadBalancer: {
              serversTransport: 't',
              servers: [{ url: 'http://a' }],
              healthCheck: { path: '/' },
              sticky: { cookie: { name: 'c' } }
            }
          }
        }
      }
    },
    apisix: {
      routes: [
        {
          id: 'r',
          uri: '/a/*',
          vars: [['arg_a', '==', '1']],
          plugins: {
            'key-auth': {},
            'limit-count': { count: 1, time_window: 1 },
            'traffic-split': {
              rules: [{ match: [{ vars: [['http_a', '==', '1']] }], weighted_upstreams: [{ upstream_id: 'u' }, {}] }]
            },
            workflow: { rules: [{ case: [['arg_b', '==', '1']], actions: [['return', { code: 403 }]] }] }
          },
          upstream_id: 'u'
        }
      ],
      upstreams: [{ id: 'u', type: 'chash', nodes: { 'a:80': 1 }, checks: { active: { http_path: '/' } } }],
      ssls: [{ cert: '-----BEGIN', key: '-----BEGIN', snis: ['a'], client: { ca: '-----BEGIN' } }],
      consumer_groups: [{ id: 'g', plugins: { 'limit-count': { count: 1, time_window: 1 } } }],
      consumers: [{ username: 'c', group_id: 'g', plugins: { 'key-auth': { key: 'k' } } }]
    },
    krakend: {
      version: 3,
      endpoints: [
        {
          endpoint: '/a/{b}',
          method: 'POST',
          backend: [
            { host: ['http://a'], url_pattern: '/{b}', mapping: { a: 'b' } },
            { host: ['http://b'], url_pattern: '/' }
          ]
        }
      ],
      extra_config: {
        'auth/validator': { alg: 'RS256', jwk_url: 'https://a' },
        'qos/ratelimit/router': { max_rate: 5 }
      }
    }
  }
  const junk = [null, [], {}, 7, -1, 'x', '', true, [null], { a: null }, '__proto__', '~(', 'a\u0007\u2028\nb: c']
  const mutants = function* (value: unknown): Generator<unknown> {
    yield* junk
    if (typeof value !== 'object' || value === null) return
    for (const [key, each] of Object.entries(value)) {
      for (const other of mutants(each)) {
        const copy: unknown = Array.isArray(value) ? value.with(Number(key), other) : { ...value, [key]: other }
        yield copy
      }
    }
  }
  for (const [gateway, sample] of Object.entries(samples)) {
    t.match(imported(gateway, JSON.stringify(sample)).yaml, 'routes:', gateway)
    let count = 0
    const wrong = new Set<string>()
    for (const mutant of mutants(sample)) {
      count++
      const text = JSON.stringify(mutant)
      let yaml: string
      try {
        ;({ yaml } = imported(gateway, text))
      } catch (error) {
        if (!(error instanceof ImportFault)) wrong.add(`${text}: ${String(error)}`)
        continue
      }
      // Reading each of them would take too long.
      if (count % 4 !== 0) continue
      try {
        parseConfig(yaml, '/gateway.yaml')
      } catch (error) {
        // Settings may have values that nothing accepts; the file itself has to be read.
        if (!(error instanceof ConfigError) || /not YAML|cannot be read/.test(error.message))
          wrong.add(`${text}: ${String(error)}`)
      }
    }
    t.ok(count > 250, `${gateway}: ${count}`)
    t.strictSame([...wrong].slice(0, 3), [], gateway)
  }
})
