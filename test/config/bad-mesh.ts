/** Configurations of the mesh's concerns that must be refused, with the text of every fault. */
import type { BadConfig } from './bad-configs.ts'

export const badMesh: readonly BadConfig[] = [
  {
    name: 'a hash policy without hashOn',
    yaml: `mesh: { balance: ring-hash }
`,
    faults: ['1:18: mesh.balance: ring-hash needs hashOn, the part of a call that is hashed, such as ip or header:NAME']
  },
  {
    name: 'hashOn without a hash policy',
    yaml: `mesh: { balance: { policy: random, hashOn: ip } }
`,
    faults: ['1:36: mesh.balance.hashOn: only ring-hash and maglev have hashOn; random does not hash']
  },
  {
    name: 'an unknown hashOn',
    yaml: `mesh: { balance: { policy: maglev, hashOn: user } }
`,
    faults: ['1:44: mesh.balance.hashOn: expected ip, consumer, header:NAME, cookie:NAME or query:NAME, found "user"']
  },
  {
    name: 'cookieTtl without a cookie in hashOn',
    yaml: `mesh: { balance: { policy: maglev, hashOn: ip, cookieTtl: 1h } }
`,
    faults: ['1:48: mesh.balance.cookieTtl: needs hashOn: cookie:NAME']
  },
  {
    name: 'maxLoad without a hash policy',
    yaml: `mesh: { balance: { policy: random, maxLoad: 150% } }
`,
    faults: ['1:36: mesh.balance.maxLoad: only ring-hash and maglev have maxLoad; random does not hash']
  },
  {
    name: 'maxLoad below the average load',
    yaml: `mesh: { balance: { policy: maglev, hashOn: ip, maxLoad: 90% } }
`,
    faults: ['1:57: mesh.balance.maxLoad: must be at least 100%: less than the mean load cannot hold for all instances']
  },
  {
    name: 'a malformed cookie name in hashOn',
    yaml: `mesh: { balance: { policy: maglev, hashOn: 'cookie:a b' } }
`,
    faults: [
      '1:44: mesh.balance.hashOn: expected ip, consumer, header:NAME, cookie:NAME or query:NAME, found "cookie:a b"'
    ]
  },
  {
    name: 'a table size that is not prime',
    yaml: `mesh: { balance: { policy: maglev, hashOn: ip, tableSize: 65536 } }
`,
    faults: ['1:59: mesh.balance.tableSize: 65536 is not a prime; 65537 and 655373, for example, are']
  },
  {
    name: 'a panic threshold without its unit',
    yaml: `mesh: { balance: { policy: random, panicThreshold: 50 } }
`,
    faults: ['1:52: mesh.balance.panicThreshold: expected a percentage from 0% to 100%, found 50']
  },
  {
    name: 'health statuses in reverse order',
    yaml: `mesh: { healthCheck: { statuses: [204, 299-200] } }
`,
    faults: ['1:40: mesh.healthCheck.statuses[1]: the end of the range is below its start']
  },
  {
    name: 'a malformed health status',
    yaml: `mesh: { healthCheck: { statuses: [2xx] } }
`,
    faults: [
      '1:35: mesh.healthCheck.statuses[0]: expected an integer from 100 to 599 or a range such as 200-299, found "2xx"'
    ]
  },
  {
    name: 'a base ejection longer than the maximum',
    yaml: `mesh: { outlierDetection: { baseEjection: 10m } }
`,
    faults: ['1:27: mesh.outlierDetection: baseEjection must not be longer than maxEjection']
  },
  {
    name: 'concurrency limits out of order',
    yaml: `mesh: { adaptiveConcurrency: { minLimit: 50 } }
`,
    faults: ['1:30: mesh.adaptiveConcurrency: expected minLimit ≤ initialLimit ≤ maxLimit']
  },
  {
    name: 'a client certificate without its key',
    yaml: `mesh: { tls: { cert: rsa.pem } }
`,
    faults: ['1:14: mesh.tls: a client certificate needs both cert and key']
  },
  {
    name: 'a missing ca file',
    yaml: `mesh: { tls: { ca: nowhere.pem } }
`,
    faults: [(dir) => `1:20: mesh.tls.ca: no such file: ${dir}/nowhere.pem`]
  },
  {
    name: 'responses shared by callers with other credentials',
    yaml: `mesh: { collapse: { excludeHeaders: [x-forwarded-for, Authorization] } }
services: { a: { instances: [http://h], mesh: { fallback: [{ stale: { excludeHeaders: [if-none-match] } }] } } }
`,
    faults: [
      '1:55: mesh.collapse.excludeHeaders[1]: Authorization cannot be excluded: requests that differ in it never share a response',
      '2:88: services.a.mesh.fallback[0].stale.excludeHeaders[0]: if-none-match cannot be excluded: requests that differ in it never share a response'
    ]
  },
  {
    name: 'a hedge without after and percentile',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { hedge: {} }
`,
    faults: ['2:16: mesh.hedge: needs exactly one of after and percentile']
  },
  {
    name: 'a hedge with after and percentile',
    yaml: `mesh: { hedge: { after: 100ms, percentile: 95 } }
`,
    faults: ['1:16: mesh.hedge: needs exactly one of after and percentile']
  },
  {
    name: 'a fallback without a kind',
    yaml: `mesh: { fallback: [{}] }
`,
    faults: [
      '1:20: mesh.fallback[0]: a fallback needs exactly one of service, stale and status; this one has none of them'
    ]
  },
  {
    name: 'a fallback of two kinds',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { fallback: [{ service: a, status: 200 }] }
`,
    faults: [
      '2:20: mesh.fallback[0]: a fallback needs exactly one of service, stale and status; this one has service and status'
    ]
  },
  {
    name: 'a fallback with a body but no status',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { fallback: [{ service: a, body: x }] }
`,
    faults: ['2:34: mesh.fallback[0].body: only a static response has body: add "status"']
  },
  {
    name: 'a fallback to an unknown service',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { fallback: [{ service: aa }] }
`,
    faults: ['2:31: mesh.fallback[0].service: unknown service "aa"; did you mean "a"?']
  },
  {
    name: 'a fallback to the service itself',
    yaml: `services: { a: { instances: [http://h], mesh: { fallback: [{ service: a }] } } }
`,
    faults: ['1:71: services.a.mesh.fallback[0].service: "a" is the service itself; name another one']
  },
  {
    name: 'a fallback on an unknown condition',
    yaml: `mesh: { fallback: [{ on: [timeouts], status: 200 }] }
`,
    faults: [
      '1:27: mesh.fallback[0].on[0]: expected an integer from 400 to 599 or one of no-instance, circuit-open, overloaded, connect-failure, reset, timeout, 5xx, found "timeouts"; did you mean "timeout"?'
    ]
  },
  {
    name: 'a mirror to an unknown service',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { mirror: { service: shadow } }
`,
    faults: ['2:28: mesh.mirror.service: unknown service "shadow"']
  },
  {
    name: 'a mirror to the service itself',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, service: a, mesh: { mirror: { service: a } } }
`,
    faults: ['3:78: routes[0].mesh.mirror.service: "a" is the service itself; name another one']
  },
  {
    name: 'a fault without a kind',
    yaml: `mesh: { fault: {} }
`,
    faults: ['1:16: mesh.fault: needs at least one of delay, abort, bandwidth and header: true']
  },
  {
    name: 'a fault by a percentage without its unit',
    yaml: `mesh: { fault: { abort: { status: 503, percent: 10 } } }
`,
    faults: ['1:49: mesh.fault.abort.percent: expected a percentage from 0% to 100%, found 10']
  },
  {
    name: 'sidecar mode for services without the URL of a sidecar',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
mesh: { mode: sidecar }
`,
    faults: [
      '1:16: services.a: missing key "sidecar": with mesh.mode: sidecar it is the URL of the local listener for this service',
      '1:46: services.b: missing key "sidecar": with mesh.mode: sidecar it is the URL of the local listener for this service'
    ]
  },
  {
    name: 'sidecar mode of a service without the URL of its sidecar',
    yaml: `services: { a: { instances: [http://h], mesh: { mode: sidecar } } }
`,
    faults: ['1:55: services.a.mesh.mode: mode sidecar needs services.a.sidecar, the URL of its local listener']
  },
  {
    name: 'Connect without Consul and identity',
    yaml: `mesh: { mode: connect }
`,
    faults: [
      '1:15: mesh.mode: needs discovery.consul',
      '1:15: mesh.mode: needs mesh.identity.service, the Consul service as which the gateway calls others'
    ]
  },
  {
    name: 'a static list of instances with Connect',
    yaml: `discovery: { consul: { url: http://c } }
mesh: { mode: connect, identity: { service: gw } }
services: { a: { instances: [http://h] }, b: { instances: [http://h], mesh: { mode: direct } }, c: {} }
`,
    faults: ['3:18: services.a.instances: mode: connect finds instances in Consul; this service needs mode: direct']
  },
  {
    name: 'intentions without an identity',
    yaml: `discovery: { consul: { url: http://c } }
mesh: { intentions: {} }
`,
    faults: ['2:21: mesh.intentions: needs mesh.identity.service, the Consul service as which the gateway calls others']
  },
  {
    name: 'a subset that the service does not have',
    yaml: `services: { a: { instances: [http://h], subsets: { green: { tags: [green] } } } }
routes:
  - { name: one, match: { path: /a }, service: a, mesh: { subset: gren } }
`,
    faults: ['3:67: routes[0].mesh.subset: the service "a" has no subset "gren"; did you mean "green"?']
  },
  {
    name: 'a split to an unknown subset',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, split: [{ service: a, subset: canary, weight: 1 }] }
`,
    faults: ['3:69: routes[0].split[0].subset: the service "a" has no subset "canary"']
  },
  {
    name: 'stickOn without a split',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, service: a, stickOn: ip }
`,
    faults: ['3:51: routes[0].stickOn: no effect without "split"']
  },
  {
    name: 'a concern of the service on a route',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, service: a, mesh: { outlierDetection: {} } }
`,
    faults: ['3:59: routes[0].mesh.outlierDetection: unknown key; it can only be set for services']
  },
  {
    name: 'a static fallback that HTTP cannot express',
    yaml: `mesh: { fallback: [{ status: 204, body: x, headers: { "a b": x, x-a: "1\\n2", x-b: 日 } }] }
`,
    faults: [
      '1:35: mesh.fallback[0].body: a response with status 204 cannot have a body',
      '1:55: mesh.fallback[0].headers["a b"]: "a b" is not a valid header name',
      '1:70: mesh.fallback[0].headers.x-a: a header value cannot contain line breaks, or characters beyond Latin-1',
      '1:83: mesh.fallback[0].headers.x-b: a header value cannot contain line breaks, or characters beyond Latin-1'
    ]
  },
  {
    name: 'an unknown mode of the circuit breaker',
    yaml: `mesh: { circuitBreaker: { mode: warn } }
`,
    faults: ['1:33: mesh.circuitBreaker.mode: expected one of enforce, shadow, found "warn"']
  },
  {
    name: 'caps in the circuit breaker of a route, and one that never opens',
    yaml: `services: { a: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, service: a, mesh: { circuitBreaker: { maxConnections: 5 } } }
  - { name: two, match: { path: /b }, service: a, mesh: { circuitBreaker: { errorRatio: false, slowRatio: false } } }
`,
    faults: [
      '3:77: routes[0].mesh.circuitBreaker.maxConnections: unknown key; caps are those of a service: write it under services.NAME.mesh.circuitBreaker',
      '4:75: routes[1].mesh.circuitBreaker: nothing opens this circuit: set consecutiveFailures, errorRatio or slowRatio, or write false'
    ]
  },
  {
    name: 'a circuit breaker with the words of other gateways, and with times and statuses that contradict each other',
    yaml: `mesh: { circuitBreaker: { max_errors: 5, max_breaker_sec: 300 } }
services:
  a: { instances: [http://h], mesh: { circuitBreaker: { failureStatuses: [504-502, 99], openFor: 10s } } }
  b: { instances: [http://h], mesh: { circuitBreaker: { failureStatuses: [504-502], openFor: 10s, maxOpenFor: 5s } } }
`,
    faults: [
      '1:27: mesh.circuitBreaker.max_errors: unknown key; write consecutiveFailures',
      '1:42: mesh.circuitBreaker.max_breaker_sec: unknown key; write maxOpenFor',
      '3:84: services.a.mesh.circuitBreaker.failureStatuses[1]: expected an integer from 100 to 599 or a range such as 200-299, found 99',
      '4:75: services.b.mesh.circuitBreaker.failureStatuses[0]: the end of the range is below its start',
      '4:111: services.b.mesh.circuitBreaker.maxOpenFor: must not be shorter than openFor, 10s'
    ]
  },
  {
    name: 'credentials of no kind, of two kinds, without a secret, and with two',
    yaml: `services:
  a: { instances: [http://h], mesh: { credentials: {} } }
  b: { instances: [http://h], mesh: { credentials: { bearer: { token: x }, header: { name: y, secret: z } } } }
  c: { instances: [http://h], mesh: { credentials: { basic: { username: ann } } } }
  d: { instances: [http://h], mesh: { credentials: { bearer: { token: x, tokenFile: y } } } }
  e: { instances: [http://h], mesh: { credentials: { bearer: { token: "a\\nb" } } } }
  f: { instances: [http://h], mesh: { credentials: { header: { name: Host, secret: x } } } }
  g: { instances: [http://h], mesh: { credentials: { basic: { username: "a:b", passwordFile: nowhere } } } }
`,
    faults: [
      '2:52: services.a.mesh.credentials: needs exactly one of oauth2, bearer, basic, header; this has none of them',
      '3:52: services.b.mesh.credentials: needs exactly one of oauth2, bearer, basic, header; this has bearer and header',
      '4:61: services.c.mesh.credentials.basic: needs exactly one of password, passwordFile; found none',
      '5:62: services.d.mesh.credentials.bearer: needs exactly one of token, tokenFile; found token and tokenFile',
      '6:71: services.e.mesh.credentials.bearer.token: has characters that a header cannot have: line breaks, control characters, or others than ASCII',
      '7:70: services.f.mesh.credentials.header.name: "Host" is set by the gateway itself',
      '8:73: services.g.mesh.credentials.basic.username: expected a name without colons, found "a:b"',
      (dir) => `8:94: services.g.mesh.credentials.basic.passwordFile: no such file: ${dir}/nowhere`
    ]
  },
  {
    name: 'OAuth 2.0 credentials that contradict each other',
    yaml: `services:
  a: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b } } } }
  b: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, url: "https://u:p@id/token", path: /x } } } }
  c: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, url: "https://id", service: a, keyId: k } } } }
  d: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, service: a, ca: x.pem } } } }
  e: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, service: e } } } }
  f: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, clientSecret: b, service: nobody, parameters: { scope: x, client_id: y } } } } }
  g: { instances: [http://h], mesh: { credentials: { oauth2: { clientId: a, privateKeyFile: none.pem, service: b, clientAuth: post } } } }
  h: { instances: [http://h], mesh: { credentials: { client_credentials: { token_url: x } } } }
  i: { instances: [http://h], mesh: { credentials: { oauth2: { token_url: x, client_id: y, clientSecret: 12345, scope: z } } } }
  j: { instances: [http://h], mesh: { upstream_oauth: {} } }
mesh: { credentials: { bearer: { token: x } } }
routes:
  - { name: one, match: { path: /a }, service: a, mesh: { credentials: { bearer: { token: x } } } }
`,
    faults: [
      '2:62: services.a.mesh.credentials.oauth2: needs url or service, the token endpoint',
      '3:99: services.b.mesh.credentials.oauth2.url: credentials in this URL are not sent; remove them',
      '3:123: services.b.mesh.credentials.oauth2.path: belongs to service; write the path in url',
      '4:113: services.c.mesh.credentials.oauth2.service: set either url or service',
      '4:125: services.c.mesh.credentials.oauth2.keyId: only with privateKeyFile',
      '5:103: services.d.mesh.credentials.oauth2.service: a needs a token itself (services.a.mesh.credentials); tokens cannot depend on tokens',
      '5:106: services.d.mesh.credentials.oauth2.ca: belongs to url; for a service write mesh.tls.ca of the service',
      '6:103: services.e.mesh.credentials.oauth2.service: "e" is the service itself; name another one',
      '7:103: services.f.mesh.credentials.oauth2.service: unknown service "nobody"',
      '7:125: services.f.mesh.credentials.oauth2.parameters.scope: is set by the gateway: write scopes',
      '7:135: services.f.mesh.credentials.oauth2.parameters.client_id: is set by the gateway: write clientId',
      '8:62: services.g.mesh.credentials.oauth2: with service and privateKeyFile, set issuer: the server does not know the name of the service here',
      (dir) => `8:93: services.g.mesh.credentials.oauth2.privateKeyFile: no such file: ${dir}/none.pem`,
      '8:115: services.g.mesh.credentials.oauth2.clientAuth: with privateKeyFile there is no secret to send',
      '9:54: services.h.mesh.credentials.client_credentials: unknown key; write oauth2',
      '10:62: services.i.mesh.credentials.oauth2: missing key "clientId"',
      '10:64: services.i.mesh.credentials.oauth2.token_url: unknown key; write url',
      '10:78: services.i.mesh.credentials.oauth2.client_id: unknown key; did you mean "clientId"?',
      '10:106: services.i.mesh.credentials.oauth2.clientSecret: expected a string, found a number; put it in quotes',
      '10:113: services.i.mesh.credentials.oauth2.scope: unknown key; write scopes, a list',
      '11:39: services.j.mesh.upstream_oauth: unknown key; write credentials under services.NAME.mesh',
      '12:9: mesh.credentials: unknown key; write it under services.NAME.mesh',
      '14:59: routes[0].mesh.credentials: unknown key; it can only be set for services'
    ]
  },
  {
    name: 'the words of other gateways for certificates that are not verified',
    yaml: `mesh: { insecureSkipVerify: true }
services:
  a: { instances: [https://h], tls_verify: false, mesh: { tls: { rejectUnauthorized: false } } }
  b: { instances: [https://h], strictSSL: false, mesh: { tls: { verify: false, sni: x } } }
`,
    faults: [
      '1:9: mesh.insecureSkipVerify: unknown key; certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE under mesh.tls',
      '3:32: services.a.tls_verify: unknown key; certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE under mesh.tls',
      '3:66: services.a.mesh.tls.rejectUnauthorized: unknown key; certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE',
      '4:32: services.b.strictSSL: unknown key; certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE under mesh.tls',
      '4:65: services.b.mesh.tls.verify: unknown key; certificates of services are always verified; for a self-signed one, or an authority of your own, write ca: FILE',
      '4:80: services.b.mesh.tls.sni: unknown key; write serverName'
    ]
  },
  {
    name: 'a share of a split without a service',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, split: [{ weight: 1 }] }
`,
    faults: ['3:47: routes[0].split[0]: missing key "service"']
  },
  {
    name: 'an empty match of a share',
    yaml: `services: { a: { instances: [http://h] }, b: { instances: [http://h] } }
routes:
  - { name: one, match: { path: /a }, split: [{ service: a, weight: 1 }, { service: b, match: {} }] }
`,
    faults: ['3:95: routes[0].split[1].match: expected a mapping with at least one key, found an empty mapping']
  },
  {
    name: 'a percentage above 100 %',
    yaml: `mesh: { circuitBreaker: { errorRatio: 150% } }
`,
    faults: ['1:39: mesh.circuitBreaker.errorRatio: expected false or a percentage from 0% to 100%, found "150%"']
  },
  {
    name: 'passwords in URLs that are not percent-encoded',
    yaml: `discovery: { eureka: { urls: [http://h/eureka, "http://user:tops%zz@h/eureka", "http://a%:41@h/eureka"] } }
edge: { jwt: { jwks: "https://user:tops%zz@h/jwks" } }
services: { a: { eureka: {} } }
`,
    faults: [
      '1:48: discovery.eureka.urls[1]: user and password of a URL are percent-encoded: write "%" as "%25"',
      '1:80: discovery.eureka.urls[2]: user and password of a URL are percent-encoded: write "%" as "%25"',
      '2:22: edge.jwt.jwks: user and password of a URL are percent-encoded: write "%" as "%25"'
    ]
  }
]
