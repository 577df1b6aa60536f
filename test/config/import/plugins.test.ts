/** Import of single plugins of other gateways: each becomes a configuration that `check` accepts. */
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { imported } from '../../../config/import/index.ts'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'

/** A plugin of a route: what it becomes, and what is left to do: `todo` is a fault until somebody decides. */
interface Case {
  readonly route?: object
  readonly config?: object
  readonly note?: RegExp
  readonly todo?: RegExp
}

function loaded(gateway: string, text: string) {
  const { yaml: draft, summary } = imported(gateway, text)
  const block = /^( *)todo:(?: \[.*\]|(?:\n\1 +- .*)+)\n/gm
  const todo = (draft.match(block) ?? []).join(' ')
  const yaml = draft.replaceAll(block, '')
  try {
    const config = parseConfig(yaml, join(import.meta.dirname, 'gateway.yaml'), {})
    return { config, yaml: draft, summary, todo }
  } catch (error) {
    throw new Error(`${draft}\n${(error as ConfigError).message}`, { cause: error })
  }
}

function check(t: Test, gateway: string, source: string, text: string, { route, config, note, todo }: Case): void {
  const found = loaded(gateway, text)
  if (route !== undefined) t.match(found.config.routes[0], route, source)
  if (config !== undefined) t.match(found.config, config, source)
  if (todo === undefined) t.equal(found.todo, '', source)
  else t.match(found.todo, todo, source)
  if (note !== undefined) t.match(found.summary, note, source)
  else if (todo === undefined) t.match(found.summary, 'nothing is left to do by hand', source)
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: expressions of Traefik
t.test('middlewares of Traefik', async (t) => {
  const cases: [middleware: string, expected: Case][] = [
    [
      'errors: { status: ["500-599", "404"], service: pages, query: "/{status}.html" }',
      { route: { edge: { errorPages: { upstream: ['5xx', 404] } } }, note: /errorPages\.pages/ }
    ],
    [
      'errors: { status: ["500-503"], service: pages, query: /e }',
      { route: { edge: { errorPages: { upstream: [500, 501, 502, 503] } } }, note: /the page \/e of pages/ }
    ],
    [
      'redirectRegex: { regex: "^https?://a\\\\.example/(.*)", replacement: "https://b.example/${1}", permanent: true }',
      { route: { redirect: { to: 'https://b.example', status: 308 } } }
    ],
    [
      'redirectRegex: { regex: "^https?://(.+)\\\\.example/(.*)$", replacement: "https://www.$1.example/x/$2" }',
      { route: { redirect: { to: 'https://www.a.example/x/*', status: 307 } } }
    ],
    [
      'redirectRegex: { regex: "^https?://a\\\\.example/old/(.*)", replacement: "https://a.example/new/$1" }',
      { route: { redirect: undefined }, note: /redirectRegex .*: write a route with "redirect"/ }
    ],
    ['redirectRegex: { regex: "(", replacement: "https://b.example" }', { note: /redirectRegex \( to/ }],
    ['redirectScheme: { scheme: https }', { route: { redirect: { scheme: 'https', status: 307 } } }],
    [
      'replacePathRegex: { regex: "^/api/(.*)", replacement: "/$1" }',
      { route: { path: { rewrite: { regex: '^/api/(.*)$', to: '/$1' } } } }
    ],
    [
      'stripPrefixRegex: { regex: ["^/v[0-9]+/"] }',
      { route: { path: { rewrite: { regex: '^(?:/v[0-9]+)/?(.*)$', to: '/$1' } } } }
    ],
    [
      'compress: { encodings: [gzip, br], minResponseBodyBytes: 2048, includedContentTypes: [text/html] }',
      { route: { edge: { compression: { encodings: ['gzip', 'br'], minSize: 2048, types: ['text/html'] } } } }
    ],
    [
      'compress: { excludedContentTypes: [text/event-stream] }',
      { route: { edge: { compression: {} } }, note: /excludedContentTypes/ }
    ],
    ['compress:', { route: { edge: { compression: {} } } }],
    ['buffering: { maxRequestBodyBytes: 1000 }', { route: { edge: { bodyLimit: 1000 } } }],
    [
      'ipAllowList: { sourceRange: [10.0.0.0/8], rejectStatusCode: 404 }',
      { route: { edge: { ipFilter: { allow: ['10.0.0.0/8'], status: 404 } } } }
    ],
    [
      'ipAllowList: { sourceRange: [10.0.0.0/8], ipStrategy: { depth: 1 } }',
      { route: { edge: { ipFilter: {} } }, todo: /ipStrategy: write listen\.trustProxy/ }
    ],
    [
      'inFlightReq: { amount: 10, sourceCriterion: { requestHost: true } }',
      { route: { edge: { rateLimit: { maxConcurrent: 10, by: 'header:host' } } } }
    ],
    ['retry: { attempts: 4 }', { route: { mesh: { retry: { attempts: 3 } } } }],
    [
      'passTLSClientCert: { pem: true }',
      { route: { edge: { forwardClientCert: {} } }, note: /Client-Cert \(RFC 9440\)/ }
    ],
    [
      'forwardAuth: { address: "http://auth:9000/verify", authResponseHeaders: [X-User] }',
      { route: { edge: { forwardAuth: { url: 'http://auth:9000/verify', responseHeaders: ['x-user'] } } } }
    ],
    ['digestAuth: { users: ["a:b:c"] }', { todo: /digestAuth/ }],
    ['contentType: {}', { route: { edge: { headers: undefined } } }],
    ['headers: { allowedHosts: [a.example] }', { todo: /allowedHosts/ }],
    ['plugin: { sablier: {} }', { todo: /plugin/ }],
    ['grpcWeb: { allowOrigins: ["*"] }', { note: /grpcWeb/ }]
  ]
  for (const [middleware, expected] of cases) {
    check(
      t,
      'traefik',
      middleware,
      `
http:
  routers: { r: { rule: "Host(\`a.example\`)", service: s, middlewares: [m] } }
  middlewares: { m: { ${middleware} } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }
`,
      expected
    )
  }
})

// biome-ignore-end lint/suspicious/noTemplateCurlyInString: expressions of Traefik
t.test('Traefik: limits of several middlewares, and a chain', async (t) => {
  const { config } = loaded(
    'traefik',
    `
http:
  routers: { r: { rule: "Host(\`a.example\`)", service: s, middlewares: [all] } }
  middlewares:
    all: { chain: { middlewares: [one, two@file] } }
    one: { rateLimit: { average: 5, burst: 10 } }
    two: { inFlightReq: { amount: 3 } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }
`
  )
  t.match(config.routes[0]!.edge.rateLimit, [{ algorithm: 'token-bucket', max: 5, burst: 10 }, { maxConcurrent: 3 }])
})

t.test('Traefik: entry points, redirections, certificates and options of TLS', async (t) => {
  const folder = folderFor(t)
  const issuer = authority(folder, 'issuer')
  const { certFile, keyFile } = issuer.issue('site', { san: 'DNS:a.example' })
  const http = `
http:
  routers:
    site: { rule: "Host(\`a.example\`)", service: s, entryPoints: [websecure], tls: {} }
    plain: { rule: "Host(\`b.example\`)", service: s, entryPoints: [web] }
    both: { rule: "PathPrefix(\`/both\`)", service: s }
  middlewares: { private: { ipAllowList: { sourceRange: [10.0.0.0/8] } } }
  services: { s: { loadBalancer: { servers: [{ url: "http://s:80" }] } } }`
  const tls = `
tls:
  certificates: [{ certFile: ${certFile}, keyFile: ${keyFile} }]
  options:
    default: { minVersion: VersionTLS12, sniStrict: true, cipherSuites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256], clientAuth: { caFiles: [${issuer.file}], clientAuthType: RequireAndVerifyClientCert } }`
  const all = loaded(
    'traefik',
    `
entryPoints:
  web: { address: ":8000", http: { redirections: { entryPoint: { to: websecure, scheme: https } } } }
  websecure: { address: "127.0.0.1:8443", forwardedHeaders: { trustedIPs: [10.0.0.0/8] }, http: { middlewares: [private@file] } }
  traefik: { address: ":9000/udp" }
log: { level: INFO }
${http}${tls}`
  )
  const [web, secure, ...others] = all.config.listeners
  t.strictSame(others, [])
  t.match(web, { name: 'web', port: 8000, redirect: 'https', tls: undefined })
  t.match(secure, {
    name: 'websecure',
    host: '127.0.0.1',
    port: 8443,
    http2: true,
    trustProxy: ['10.0.0.0/8'],
    tls: {
      cert: certFile,
      minVersion: 'TLSv1.2',
      strict: true,
      ciphers: ['ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'TLS_AES_128_GCM_SHA256'],
      clientCertificate: { mode: 'require', ca: issuer.file }
    }
  })
  const [site, plain, both] = all.config.routes
  t.match(site, { match: { listeners: ['websecure'] }, edge: { ipFilter: { allow: ['10.0.0.0/8'] } } })
  t.match(plain, { match: { listeners: ['web'] } })
  t.notOk('ipFilter' in plain!.edge)
  t.match(both, { match: { path: '/both', listeners: undefined }, edge: { ipFilter: {} } })
  t.equal(all.todo, '')
  t.match(all.summary, 'entryPoint traefik: address :9000/udp: not converted')

  const assumed = loaded('traefik', `${http}${tls}`)
  t.match(assumed.config.listeners, [
    { name: 'websecure', port: 443, tls: { strict: true } },
    { name: 'web', port: 80 }
  ])
  t.match(assumed.summary, 'entryPoint web is not in this file: port 80 is assumed')

  const one = loaded('traefik', `${http.replaceAll(/, entryPoints: \[\w+\]/g, '')}${tls}`)
  t.match(one.config.listeners, [{ port: 443, tls: { cert: certFile } }])

  const other = imported('traefik', `${http}\ntls: { options: { mtls: { clientAuth: { caFiles: [a, b] } } } }`).yaml
  t.match(other, /todo:\s+(?:\[|- )"tls\.options\.mtls: not converted/)
  t.match(other, /folders: \[\/etc\/letsencrypt\/live\]/)
  const anyCertificate = `${http}\ntls: { options: { default: { clientAuth: { clientAuthType: RequestClientCert } } } }`
  t.match(imported('traefik', anyCertificate).yaml, /todo:\s.*clientAuth: RequestClientCert/s)
})
