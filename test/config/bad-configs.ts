/** Configurations and the text of their faults: `line:column: path: message`. The first line of each is empty. */

export interface BadConfig {
  readonly name: string
  readonly yaml: string
  /** Functions get the folder of the file. */
  readonly faults: readonly (string | ((dir: string) => string))[]
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: how a variable is written
/** End of faults about concerns that consumers cannot override. */
const owned =
  'a consumer can have its own shedPriority, bodyTimeout, bodyRate, ipFilter, rateLimit, forwardAuth, acl, authorization, uma, websocket, bodyLimit, graphql'

export const badConfigs: readonly BadConfig[] = [
  {
    name: 'an empty file, such as a truncated one',
    yaml: `
# routes were here
`,
    faults: ['1:1: the file is empty; write {} for a configuration without settings']
  },
  {
    name: 'rules for bodies',
    yaml: `
edge:
  body:
    maxSize: 20mb
    request:
      remove: [a, /b, /b, /b/c, "/d~"]
      rename: { /x: /y, /x/z: /q, /m: /y/n, /same: /same, "/i/*/a": "/j/*/a", k: /l }
      set: { user.id: 1, /n: 12345678901234567890, /t: [{ u: "{heders.a}" }], /r: "{response.status}" }
      add: { "": 1, /id: "{consumer.id|a}" }
    response:
      - { types: [json], statuses: [100, 6xx] }
      - { allow: [/a] }
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: "/:id", methods: [GET] }, service: a, edge: { body: { request: { set: { /a: "{params.di}", /b: "{claims/sub}" } } } } }
  - { name: b, match: { path: /b }, service: a, edge: { body: {} } }
  - { name: c, match: { path: /c }, service: a, edge: { responsePath: raw, body: { response: { remove: [/a] } } } }
`,
    faults: [
      '4:14: edge.body.maxSize: is more than 16mb: changing a body of this size would block all other requests',
      '6:16: edge.body.request.remove[0]: expected a JSON pointer such as /user/name, found "a"',
      '6:23: edge.body.request.remove[2]: "/b" removes it already',
      '6:27: edge.body.request.remove[3]: "/b" removes it already',
      '6:33: edge.body.request.remove[4]: expected a JSON pointer such as /user/name, found "/d~"',
      '7:17: edge.body.request.rename["/x"]: "/m" is moved to "/y/n", so one replaces the other; write a list of rules',
      '7:25: edge.body.request.rename["/x/z"]: "/x" moves it already; write a list of rules, one after another',
      '7:35: edge.body.request.rename["/m"]: "/x" is moved to "/y", so one replaces the other; write a list of rules',
      '7:45: edge.body.request.rename["/same"]: changes nothing: both pointers are the same',
      '7:59: edge.body.request.rename["/i/*/a"]: "/i/*/a" and "/j/*/a" must be equal up to the last "*"',
      '7:79: edge.body.request.rename.k: "k" is not a JSON pointer; write "/k"',
      '8:14: edge.body.request.set["user.id"]: "user.id" is not a JSON pointer; write "/user/id"',
      '8:30: edge.body.request.set["/n"]: has more digits than a number of the configuration keeps; write it as a text',
      '8:62: edge.body.request.set["/t"][0].u: unknown reference "{heders.a}"; did you mean "headers."?',
      '8:83: edge.body.request.set["/r"]: there is no response yet for "{response.status}"; it can be used in rules for the response',
      '9:14: edge.body.request.add[""]: name a member; the whole body is there already',
      '9:21: edge.body.request.add["/id"]: clients could send a value at "/id" themselves; write it under "set", which replaces it',
      '11:9: edge.body.response[0]: changes nothing: write "only", "remove", "rename", "set" or "add"',
      '11:19: edge.body.response[0].types[0]: expected a media range such as application/json or application/*+json, found "json"',
      '11:37: edge.body.response[0].statuses[0]: expected a status of 200 to 599, or 2xx, 3xx, 4xx, 5xx, found 100',
      '11:42: edge.body.response[0].statuses[1]: expected a status of 200 to 599, or 2xx, 3xx, 4xx, 5xx, found "6xx"; did you mean "2xx"?',
      '12:9: edge.body.response[1]: changes nothing: write "only", "remove", "rename", "set" or "add"',
      '12:11: edge.body.response[1].allow: unknown key',
      '15:107: routes[0].edge.body.request.set["/a"]: match.path has no parameter "di"; did you mean "id"?',
      '16:63: routes[1].edge.body: changes nothing: write "request" or "response"',
      '17:71: routes[2].edge.responsePath: edge.body.response changes no response on the raw path; write auto'
    ]
  },
  {
    name: 'bodies that do not exist, and types that none has',
    yaml: `
edge:
  body: { response: { types: ["*/json", "application/j*", "a/b;c=d", text/**], statuses: [204, 2xx, 205, 304], remove: [/a] } }
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: "/:id" }, service: a, edge: { validation: { path: { properties: { di: {} }, required: [id, no] } } } }
`,
    faults: [
      '3:31: edge.body.response.types[0]: expected a media range such as application/json or application/*+json, found "*/json"',
      '3:41: edge.body.response.types[1]: expected a media range such as application/json or application/*+json, found "application/j*"',
      '3:59: edge.body.response.types[2]: expected a media range such as application/json or application/*+json, found "a/b;c=d"',
      '3:70: edge.body.response.types[3]: expected a media range such as application/json or application/*+json, found "text/**"',
      '3:91: edge.body.response.statuses[0]: responses with status 204 have no body',
      '3:101: edge.body.response.statuses[2]: responses with status 205 have no body',
      '3:106: edge.body.response.statuses[3]: responses with status 304 have no body',
      '6:97: routes[0].edge.validation.path.properties.di: match.path has no parameter "di"; did you mean "id"?',
      '6:122: routes[0].edge.validation.path.required[1]: match.path has no parameter "no"'
    ]
  },
  {
    name: 'keys in which an import left decisions',
    yaml: `
todo: later
edge: { todo: ["plugin ldap-auth: not converted", "plugin x: url http://a:hunter2@b"] }
services: { a: { instances: [http://h], todo: 5 } }
routes:
  - { name: a, match: { path: / }, service: a, todo: ["middleware auth is not in this file"] }
`,
    faults: [
      '2:1: todo: to be decided: later. Write what replaces it, if it is needed, and remove "todo"',
      '3:9: edge.todo: to be decided: plugin ldap-auth: not converted; plugin x: url http://***@b. Write what replaces it, if it is needed, and remove "todo"',
      '4:41: services.a.todo: to be decided. Write what replaces it, if it is needed, and remove "todo"',
      '6:48: routes[0].todo: to be decided: middleware auth is not in this file. Write what replaces it, if it is needed, and remove "todo"'
    ]
  },
  {
    name: 'schemas that are misspelt',
    yaml: `
edge:
  validation:
    query: { properties: { a: { type: int } } }
    path: { properties: { a: { type: [string, nul] } } }
    headers: { properties: { a: { type: any } } }
    cookies: { properties: { a: { minimum: "3" } } }
    body: { content: { application/json: { type: "\${WORD}" }, text/plain: { type: strng } } }
`,
    faults: [
      '4:39: edge.validation.query.properties.a.type: expected one of array, boolean, integer, null, number, object, string, found "int"; did you mean "integer"?',
      '5:47: edge.validation.path.properties.a.type[1]: expected one of array, boolean, integer, null, number, object, string, found "nul"; did you mean "null"?',
      '6:41: edge.validation.headers.properties.a.type: expected one of array, boolean, integer, null, number, object, string, found "any"; leave out "type" for values of any type',
      '7:44: edge.validation.cookies.properties.a.minimum: must be number, found "3"',
      '8:50: edge.validation.body.content["application/json"].type: expected one of array, boolean, integer, null, number, object, string, found "${WORD}"',
      '8:83: edge.validation.body.content["text/plain"].type: expected one of array, boolean, integer, null, number, object, string, found "strng"; did you mean "string"?'
    ]
  },
  {
    name: 'rules for headers',
    yaml: `
edge:
  requestId: { header: x-correlation-id }
  cors: { origin: "*" }
  headers:
    request:
      remove: [host, X-Forwarded-For, x_correlation_id, sec-websocket-key]
      rename: { x-a: content-length, constructor: x-b }
      set: { "a b": c, x-c: "{header.a}", x-d: "{request.methd}", x-e: "{claims.a.b|}", x-f: "{", x-g: "{response.status}", X-C: c }
      add: { x-h: "{consumer.id|a}", te: trailers }
      append: { cookie: a=b, x-jingwei-call: a }
    response:
      set: { x-a: "a\\nb", x-b: "{query.a|健康}", content-encoding: gzip, access-control-max-age: "1", x-d: "{params.a}" }
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: "/:id" }, service: a }
  - name: b
    match: { path: "/b/:id" }
    service: a
    edge: { headers: { request: { set: { x-a: "{params.di}", x-b: "{claims/sub} {consumer.id}", x-c: "{claims/sub|a}" } } } }
`,
    faults: [
      '7:16: edge.headers.request.remove[0]: write edge.host: NAME for the Host of the service',
      '7:22: edge.headers.request.remove[1]: "X-Forwarded-For" is set by the gateway itself; for that of a proxy before it, write listen.trustProxy',
      '7:39: edge.headers.request.remove[2]: "x_correlation_id" is set by the gateway for each request',
      '7:57: edge.headers.request.remove[3]: "sec-websocket-key" belongs to the handshake of a WebSocket',
      '8:17: edge.headers.request.rename.x-a: "content-length" belongs to the connection, and the gateway sets it itself',
      '8:38: edge.headers.request.rename.constructor: "constructor" is not a header name',
      '9:14: edge.headers.request.set["a b"]: "a b" is not a header name',
      '9:29: edge.headers.request.set.x-c: unknown reference "{header.a}"; did you mean "headers."?',
      '9:48: edge.headers.request.set.x-d: unknown reference "{request.methd}"; did you mean "request.method"?',
      '9:72: edge.headers.request.set.x-e: unknown reference "{claims.a.b|}"; write {claims/a/b}',
      '9:94: edge.headers.request.set.x-f: "{" has no counterpart in "{"; write "{{" for the character itself',
      '9:104: edge.headers.request.set.x-g: there is no response yet for "{response.status}"; it can be used in rules for the response',
      '9:125: edge.headers.request.set.X-C: "set" has "x-c" already',
      '10:14: edge.headers.request.add.x-h: clients could send values of "x-h" themselves; write it under "set", which replaces these',
      '10:38: edge.headers.request.add.te: "te" belongs to the connection, and the gateway sets it itself',
      '11:17: edge.headers.request.append.cookie: a request has one Cookie field; write edge.cookies',
      '11:30: edge.headers.request.append.x-jingwei-call: "x-jingwei-call" is a header of the gateway itself',
      '13:19: edge.headers.response.set.x-a: a header cannot carry line breaks and control characters',
      '13:32: edge.headers.response.set.x-b: a header cannot carry characters beyond Latin-1',
      '13:48: edge.headers.response.set.content-encoding: "content-encoding" describes the bytes of the body, which these rules do not change',
      '20:47: routes[1].edge.headers.request.set.x-a: match.path has no parameter "di"; did you mean "id"?'
    ]
  },
  {
    name: 'rules for headers that need a caller, and headers of CORS',
    yaml: `
edge: { headers: { response: { set: { x-a: "1", x-d: "{params.id}" } } } }
services: { a: { instances: [http://h] } }
routes:
  - name: a
    match: { path: /a }
    service: a
    edge: { headers: { request: { set: { x-b: "{claims/sub} {consumer.id|a}" } }, response: { append: { x-c: "{consumer.id}" } } } }
  - { name: b, match: { path: /b }, service: a }
  - name: c
    match: { path: /c }
    service: a
    edge: { cors: { origin: "*" }, headers: { response: { remove: [vary], set: { Access-Control-Max-Age: "1" } } } }
`,
    faults: [
      '8:33: routes[0].edge.headers.request: claims: nothing on this route verifies a token with claims; add jwt, introspection, oidc or a plugin that declares provides: [consumer]',
      '13:82: routes[2].edge.headers.response.set.Access-Control-Max-Age: "Access-Control-Max-Age" is set by edge.cors; change it there'
    ]
  },
  {
    name: 'keys of other gateways, and keys in the wrong section',
    yaml: `
listen: {}
edge: { session: {}, compress: true, headers: {}, retry: {} }
mesh: { cors: false }
rateLimit: {}
instances: []
services: { a: { instances: [http://h], timeout: 1s, urls: [http://h] } }
routes:
  - name: one
    match: { path: /one }
    service: a
    hosts: [h]
    jwt: {}
    timeout: 1s
    caching: {}
    headers: { x-a: b }
    edge: { timeout: 1s, methods: [GET], compression: {}, requestId: {} }
    mesh: { cors: false, balance: random }
plugins: [{ config: {} }]
`,
    faults: [
      '3:9: edge.session: unknown key; it is not built in; a plugin can do it (plugins/README.md)',
      '3:22: edge.compress: unknown key; write compression: {}',
      '3:47: edge.headers: changes nothing: write "request" or "response"',
      '3:51: edge.retry: unknown key; it belongs under "mesh"',
      '4:9: mesh.cors: unknown key; it belongs under "edge"',
      '5:1: rateLimit: unknown key; it belongs under "edge"',
      '6:1: instances: unknown key; it belongs to a service, under "services"',
      '7:41: services.a.timeout: unknown key; it belongs under "mesh"',
      '7:54: services.a.urls: unknown key; write the addresses of a service under "instances"',
      '12:5: routes[0].hosts: unknown key; it belongs under "match"',
      '13:5: routes[0].jwt: unknown key; it belongs under "edge"',
      '14:5: routes[0].timeout: unknown key; it belongs under "mesh"',
      '15:5: routes[0].caching: unknown key; write edge.cache',
      '16:5: routes[0].headers: unknown key; to match by headers, write match.headers; to change them, write them under "edge"',
      '17:13: routes[0].edge.timeout: unknown key; it belongs under "mesh"',
      '17:26: routes[0].edge.methods: unknown key; it belongs under "match"',
      '17:59: routes[0].edge.requestId: unknown key; requestId can only be set under the top-level edge',
      '18:13: routes[0].mesh.cors: unknown key; it belongs under "edge"',
      '18:26: routes[0].mesh.balance: unknown key; it can only be set for services',
      '19:13: plugins[0].config: unknown key; write the second argument of the plugin under "options"'
    ]
  },
  {
    name: 'plugins: contradictions within one entry',
    yaml: `
plugins:
  - { path: plugin.ts, order: { before: cors, after: jwt } }
  - { path: plugin.ts, prefix: /below, scope: routes, order: { after: jwt } }
  - { package: fastify, order: {} }
  - { package: fastify, prefix: bff }
  - { path: plugin.ts, order: { after: crs } }
`,
    faults: [
      '3:47: plugins[0].order.after: set either "before" or "after", not both',
      '4:40: plugins[1].scope: no effect: the hooks of a plugin with a prefix run only on its own routes',
      '4:55: plugins[1].order: no effect: the hooks of a plugin with a prefix run only on its own routes',
      '5:32: plugins[2].order: expected a mapping with at least one key, found an empty mapping',
      '6:33: plugins[3].prefix: expected a path that starts with /, found "bff"',
      `7:40: plugins[4].order.after: unknown position "crs" among the edge concerns; did you mean "cors"?`
    ]
  },
  {
    name: 'plugins: names in routes that are unknown or not unique',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: one, match: { path: / }, service: a, plugins: [auth, plugin, auth, auht, fastify, everywhere, below] }
plugins:
  - { path: plugin.ts, name: auth, scope: routes }
  - { path: plugin.ts, scope: routes }
  - { path: plugin.ts, name: everywhere }
  - { path: plugin.ts, name: everywhere }
  - { path: plugin.ts, name: below, prefix: /below }
  - { package: fastify, scope: routes }
  - { package: fastify, scope: routes }
`,
    faults: [
      '4:74: routes[0].plugins[2]: "auth" is listed twice',
      '4:80: routes[0].plugins[3]: no such plugin: auht; did you mean "auth"?',
      '4:86: routes[0].plugins[4]: several plugins are named "fastify"; give each a unique "name"',
      '4:95: routes[0].plugins[5]: several plugins are named "everywhere"; give each a unique "name"',
      '4:107: routes[0].plugins[6]: plugin "below" has a prefix, so its hooks run only on its own routes',
      '9:30: plugins[3].name: duplicate plugin name "everywhere"; it is also on line 8'
    ]
  },
  {
    name: 'plugins: a route lists a plugin that runs on all routes',
    yaml: `
services: { a: { instances: [http://h] } }
routes: [{ name: one, match: { path: / }, service: a, plugins: [plugin] }]
plugins: [{ path: plugin.ts }]
`,
    faults: [
      '3:65: routes[0].plugins[0]: plugin "plugin" runs on all routes; set "scope: routes" to run it only on routes that list it'
    ]
  },
  {
    name: 'a private key in place of a certificate',
    yaml: `
listen: { tls: { cert: private.pem, key: private.pem } }
`,
    faults: [(dir) => `2:24: listen.tls.cert: expected a certificate, found a private key: ${dir}/private.pem`]
  },
  {
    name: 'a public key as secret, and malformed hosts',
    yaml: `
listen: { host: "a b" }
admin: { host: /tmp/socket, hosts: ["a b"] }
edge: { jwt: { secret: "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA" } }
services: { a: { dns: { host: h, port: 1, server: "h:99999" } } }
`,
    faults: [
      '2:17: listen.host: expected an IP address or a host name, found "a b"',
      '3:16: admin.host: expected an IP address or a host name, found "/tmp/socket"',
      '3:37: admin.hosts[0]: expected a host name or address such as gateway-1.internal or *.internal, found "a b"',
      '4:24: edge.jwt.secret: expected a shared secret, found a key in PEM form; put a public key under "publicKey"',
      '5:51: services.a.dns.server: expected a host and port such as 10.0.0.2:8600, found "h:99999"'
    ]
  },
  {
    name: 'trustProxy for all addresses',
    yaml: `
listen: { trustProxy: [10.0.0.0/8, 0.0.0.0/0, "::/0"] }
`,
    faults: [
      '2:36: listen.trustProxy[1]: 0.0.0.0/0 trusts every client; list only the proxies in front of the gateway',
      '2:47: listen.trustProxy[2]: ::/0 trusts every client; list only the proxies in front of the gateway'
    ]
  },
  {
    name: 'a malformed path of a health check',
    yaml: `
mesh: { healthCheck: { path: "/he alth" } }
services: { a: { instances: [http://h], mesh: { healthCheck: { path: /健康 } } } }
`,
    faults: [
      '2:30: mesh.healthCheck.path: expected a path that starts with /, in which blanks, "#" and characters beyond ASCII are percent-encoded, found "/he alth"',
      '3:70: services.a.mesh.healthCheck.path: expected a path that starts with /, in which blanks, "#" and characters beyond ASCII are percent-encoded, found "/健康"'
    ]
  },
  {
    name: 'a syntax error',
    yaml: `
listen: { port: 80
admin: false
`,
    faults: ['3:1: a "{", a "[" or a quote above is not closed']
  },
  {
    name: 'a tab as indent',
    yaml: `
listen:
	port: 80
`,
    faults: ['3:1: a tab is not allowed as indentation']
  },
  {
    name: 'a duplicate key',
    yaml: `
listen:
  port: 1
  host: a
  port: 2
`,
    faults: ['5:3: listen.port: duplicate key; it is also on line 3']
  },
  {
    name: 'two documents',
    yaml: `
admin: false
---
admin: false
`,
    faults: ['3:1: only one document is allowed in the file']
  },
  {
    name: 'an unknown alias',
    yaml: `
listen: *nowhere
`,
    faults: ['2:9: listen: unknown alias "*nowhere"']
  },
  {
    name: 'an unclosed quote',
    yaml: `
listen: { host: "0.0.0.0 }
`,
    faults: ['3:1: a "{", a "[" or a quote above is not closed']
  },
  {
    name: 'braces without quotes, which are YAML syntax',
    yaml: `
routes:
  - { name: a, match: { path: /users/{id} }, service: a }
`,
    faults: ['3:38: unexpected "{"; text with "{", "[" or "," in it must be in quotes']
  },
  {
    name: 'a host with a star without quotes',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: a, match: { path: /, hosts: [*.example.com] }, service: a }
`,
    faults: [
      '4:42: routes[0].match.hosts[0]: unknown alias "*.example.com"; text that begins with "*" must be in quotes'
    ]
  },
  ...[
    ['a text with a colon', 'a: b: c', '2:5: text with ": " in it must be in quotes'],
    ['braces at the start of a text', 'a: {b}/c', '2:7: text with "{", "[" or "," in it must be in quotes'],
    [
      'a character that YAML keeps for itself',
      'a: @b',
      '2:4: text that begins with "@", "%" or a backtick must be in quotes'
    ],
    [
      'a quote within quotes',
      "a: 'it's'",
      '2:8: text follows a closing quote; a quote within quotes is written twice, or behind a "\\"'
    ],
    ['an anchor without a name', 'a: & b', '2:4: text that begins with "&" must be in quotes'],
    ['a list behind its key', 'a: - b', '2:4: a list begins on a line of its own'],
    ['a line too far left', 'a:\n  b: 1\n c: 2', '4:2: indented differently than the lines above that it belongs to'],
    [
      'a key without a colon',
      'a\nb: 1',
      '3:2: unexpected text: indented differently than the lines above that it belongs to, or a key without its colon'
    ],
    ['brackets that are never closed', 'a: [b,', '3:1: a "{", a "[" or a quote above is not closed'],
    ['no end of nesting', '['.repeat(2000), '2:100: values are nested too deep'],
    ['a secret where a tag is read', 'a: !hunter2!x', '2:14: undeclared tag handle']
  ].map(([name, yaml, fault]) => ({ name: name!, yaml: `\n${yaml}\n`, faults: [fault!] })),
  {
    name: 'tags that do not fit their values',
    yaml: `
listen: { port: !!int eighty, host: !!float x }
admin: !!seq {}
`,
    faults: [
      '2:23: listen.port: not a valid !!int',
      '2:45: listen.host: not a valid !!float',
      '3:14: admin: unknown tag !!seq'
    ]
  },
  {
    name: 'a star without quotes',
    yaml: `
edge: { cors: { origin: * } }
`,
    faults: ['2:25: text that begins with "*" must be in quotes']
  },
  {
    name: 'no blank after a colon',
    yaml: `
routes:
  - { name:a, match: { path: / }, service: a }
`,
    faults: [
      '3:5: routes[0]: missing key "name"',
      '3:7: routes[0]["name:a"]: unknown key; write a space after the colon of "name:"',
      '3:44: routes[0].service: unknown service "a"'
    ]
  },
  {
    name: 'base paths',
    yaml: `
discovery: { consul: { url: "http://127.0.0.1:8500" } }
services:
  a: { instances: ["http://h/v1", "http://i/v2", { url: "http://j" }, "http://k/v1/"] }
  b: { instances: ["http://h/v1"], basePath: /v1 }
  c: { instances: ["http://h//v1"] }
  d: { basePath: /a/../b }
  e: { basePath: v1 }
  f: { basePath: /v1/ }
  g: { basePath: "/a?b" }
  h: { basePath: /caf\u00e9 }
  i: { basePath: /a//b }
  j: { basePath: /a%20b/c.d }
  k: { sidecar: "http://127.0.0.1:9191/v1" }
routes: []
`,
    faults: [
      '4:35: services.a.instances[1]: all instances of a service have the same path, but these have /v1 and /v2',
      '4:57: services.a.instances[2].url: all instances of a service have the same path, but these have /v1 and no path',
      '5:36: services.b.basePath: the instances have a path, too: remove one of the two',
      '6:20: services.c.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape',
      '7:18: services.d.basePath: a base path has no empty segments, no dot segments and no characters that URLs escape; write /b',
      '8:18: services.e.basePath: expected a path that starts with "/" and does not end with "/", found "v1"',
      '9:18: services.f.basePath: expected a path that starts with "/" and does not end with "/", found "/v1/"',
      '10:18: services.g.basePath: expected a path that starts with "/" and does not end with "/", found "/a?b"',
      '11:18: services.h.basePath: a base path has no empty segments, no dot segments and no characters that URLs escape; write /caf%C3%A9',
      '12:18: services.i.basePath: a base path has no empty segments, no dot segments and no characters that URLs escape',
      '14:17: services.k.sidecar: the address of a sidecar is scheme, host and port; this one has a path; to add a path prefix, set basePath of the service'
    ]
  },
  {
    name: 'addresses of instances whose path a URL would change',
    yaml: `
services:
  a: { instances: ["http://h/base/../x"] }
  b: { instances: ["http://h/v1", { url: "http://i/%2E%2e/v1" }] }
  c: { instances: ["http://h/v1//"] }
  d: { instances: ['http://h\\\\base/x'] }
  e: { instances: ["http://h/café"] }
  f: { instances: ["http://h/v1/."] }
  g: { instances: ["http://h/a%2eb/v1.2/...", "http://i/a%2eb/v1.2/.../"] }
  h: { sidecar: "http://127.0.0.1:9191/..", mesh: { mode: sidecar } }
routes: []
`,
    faults: [
      '3:20: services.a.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape; write http://h/x',
      '4:42: services.b.instances[1].url: the path of an instance has no empty segments, no dot segments and no characters that URLs escape; write http://i/v1',
      '5:20: services.c.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape',
      '6:20: services.d.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape',
      '7:20: services.e.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape; write http://h/caf%C3%A9',
      '8:20: services.f.instances[0]: the path of an instance has no empty segments, no dot segments and no characters that URLs escape; write http://h/v1/',
      '10:17: services.h.sidecar: the address of a sidecar is scheme, host and port; this one has a path; to add a path prefix, set basePath of the service'
    ]
  },
  {
    name: 'synonyms of keys, in other spellings',
    yaml: `
upstreams: {}
listen: { limits: { body: 1mb } }
mesh: { load_balancing: random, retries: 2, connections: { keep-alive: 5s } }
services: { a: { instances: "http://h", url: http://h } }
routes:
  - { name: a, match: { path: /a }, service: a, strip_path: true, upstream: a }
  - { name: b, match: { path: /b }, service: a, path: { strip: yes }, edge: { key-auth: {} } }
plugins: [{ package: fastify, config: {} }]
`,
    faults: [
      '2:1: upstreams: unknown key; write each under "services", and its addresses under "instances"',
      '3:21: listen.limits.body: unknown key; write edge.bodyLimit',
      '4:9: mesh.load_balancing: unknown key; write mesh.balance',
      '4:33: mesh.retries: unknown key; write retry: { attempts: 2 } under "mesh"',
      '4:60: mesh.connections.keep-alive: unknown key; write connections.idle',
      '5:29: services.a.instances: expected a list with at least one item, found a string; put it in brackets: [ ]',
      '5:41: services.a.url: unknown key; write the addresses of a service under "instances"',
      '7:49: routes[0].strip_path: unknown key; write path: { strip: /prefix }',
      '7:67: routes[0].upstream: unknown key; name one of "services" under "service"',
      '8:64: routes[1].path.strip: expected true or a path that starts with /, found "yes"',
      '8:79: routes[1].edge.key-auth: unknown key; did you mean "keyAuth"?',
      '9:31: plugins[0].config: unknown key; write the second argument of the plugin under "options"'
    ]
  },
  {
    name: 'keys of other gateways, with advice only where it applies',
    yaml: `
listen: { address: 0.0.0.0:80 }
services: { legacy: { dns: { host: h.test, servers: [10.0.0.1] }, nodes: [http://h] } }
routes:
  - { name: a, match: { path: /a, prefix: /b }, service: legacy, mesh: { retry: { servers: 1 } }, prefix: /c }
`,
    faults: [
      '2:11: listen.address: unknown key; write host and port',
      '3:44: services.legacy.dns.servers: unknown key; did you mean "server"?',
      '3:67: services.legacy.nodes: unknown key; write the addresses of a service under "instances"',
      '5:35: routes[0].match.prefix: unknown key; write the path of a route under match.path; path.strip removes a prefix',
      '5:83: routes[0].mesh.retry.servers: unknown key',
      '5:99: routes[0].prefix: unknown key; write the path of a route under match.path; path.strip removes a prefix'
    ]
  },
  {
    name: 'sizes that would refuse everything',
    yaml: `
listen: { limits: { headers: 0, url: 0b } }
edge: { jwt: { secret: "a secret that is long enough, for tests", maxTokenSize: 0 }, bodyLimit: 0 }
mesh: { maxHeaderSize: 0, fault: { bandwidth: { limit: 0b } } }
`,
    faults: [
      '2:30: listen.limits.headers: expected a size such as 512b, 16kb or 10mb, found 0',
      '2:38: listen.limits.url: expected a size such as 512b, 16kb or 10mb, found "0b"',
      '3:81: edge.jwt.maxTokenSize: expected a size such as 512b, 16kb or 10mb, found 0',
      '4:24: mesh.maxHeaderSize: expected a size such as 512b, 16kb or 10mb, found 0',
      '4:56: mesh.fault.bandwidth.limit: expected a size such as 512b, 16kb or 10mb, found "0b"'
    ]
  },
  {
    name: 'an unknown tag',
    yaml: `
listen: !secret { port: 1 }
`,
    faults: ['2:17: listen: unknown tag !secret']
  },
  {
    name: 'a list as key',
    yaml: `
listen:
  ? [a]
  : 1
`,
    faults: ['3:5: a key must be plain text']
  },
  {
    name: 'a recursive alias',
    yaml: `
plugins: &a
  - options: { again: *a }
    package: fastify
`,
    faults: ['3:23: plugins[0].options.again: recursive alias: this alias refers to a node that contains it']
  },
  {
    name: 'a merge of a scalar',
    yaml: `
listen:
  <<: 5
`,
    faults: ['3:3: only mappings can be merged by "<<"']
  },
  {
    name: 'not a mapping at all',
    yaml: `
just words
`,
    faults: ['2:1: expected a mapping, found a string']
  },
  {
    name: 'an unknown key that is similar to a known one',
    yaml: `
lisen: { port: 80 }
`,
    faults: ['2:1: lisen: unknown key; did you mean "listen"?']
  },
  {
    name: 'an unknown key that is similar to no other',
    yaml: `
kubernetes: true
`,
    faults: ['2:1: kubernetes: unknown key']
  },
  {
    name: 'an unknown key in a list',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    servce: a
`,
    faults: ['7:5: routes[0].servce: unknown key; did you mean "service"?']
  },
  {
    name: '__proto__ as a key',
    yaml: `
listen: { __proto__: { port: 1 } }
`,
    faults: ['2:11: listen.__proto__: unknown key']
  },
  {
    name: 'a missing key',
    yaml: `
routes:
  - name: one
    match: { methods: [GET] }
    service: a
services: { a: { instances: [http://h] } }
`,
    faults: ['4:12: routes[0].match: missing key "path"']
  },
  {
    name: 'an empty section',
    yaml: `
edge:
admin: false
`,
    faults: ['2:1: edge: expected a mapping, found nothing; write {} to leave it empty']
  },
  {
    name: 'a number for a duration',
    yaml: `
mesh:
  timeout: 15
`,
    faults: ['3:12: mesh.timeout: expected a duration such as 250ms, 15s or 5m, found 15']
  },
  {
    name: 'a malformed duration',
    yaml: `
mesh: { timeout: 15 seconds }
`,
    faults: ['2:18: mesh.timeout: expected a duration such as 250ms, 15s or 5m, found "15 seconds"']
  },
  {
    name: 'empty items of lists',
    yaml: `services: { a: { instances: ["http://h"] } }
routes:
  -
  - { name: a, match: { path: /a }, service: a }
  # - no item
  -
  - name: b
    match:
      path:
        - /b
        -
    service: a
  -   # empty
`,
    faults: [
      '3:3: routes[0]: expected a mapping, found nothing; write {} to leave it empty',
      '6:3: routes[2]: expected a mapping, found nothing; write {} to leave it empty',
      '11:9: routes[3].match.path[1]: expected a path that starts with / or a mapping, found nothing; write {} to leave it empty',
      '13:3: routes[4]: expected a mapping, found nothing; write {} to leave it empty'
    ]
  },
  {
    name: 'a malformed size',
    yaml: `
edge: { bodyLimit: 10 megs }
`,
    faults: ['2:20: edge.bodyLimit: expected false or a mapping or a size such as 512b, 16kb or 10mb, found "10 megs"']
  },
  {
    name: 'a malformed percentage',
    yaml: `
mesh: { retry: { budget: 0.2 } }
`,
    faults: ['2:26: mesh.retry.budget: expected a percentage such as 20%, found 0.2']
  },
  {
    name: 'a port out of range',
    yaml: `
listen: { port: 70000 }
`,
    faults: ['2:17: listen.port: expected an integer from 0 to 65535, found 70000']
  },
  {
    name: 'a port in quotes',
    yaml: `
listen: { port: '8080' }
`,
    faults: ['2:17: listen.port: expected an integer from 0 to 65535, found "8080"; remove the quotes']
  },
  {
    name: 'a word for a boolean',
    yaml: `
listen: { http2: yes }
`,
    faults: ['2:18: listen.http2: expected true or false, found "yes"']
  },
  {
    name: 'a number for a string',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: 7
`,
    faults: ['7:14: routes[0].service: expected a string, found 7; put it in quotes']
  },
  {
    name: 'true for a concern',
    yaml: `
edge: { cors: true }
`,
    faults: ['2:15: edge.cors: expected false or a mapping, found true']
  },
  {
    name: 'an unknown enum value',
    yaml: `
mesh: { balance: round-robbin }
`,
    faults: [
      '2:18: mesh.balance: expected one of round-robin, least-request, random, ring-hash, maglev, peak-ewma or a mapping, found "round-robbin"; did you mean "round-robin"?'
    ]
  },
  {
    name: 'an unknown retry condition',
    yaml: `
mesh: { retry: { on: [conect-failure, 503] } }
`,
    faults: [
      '2:23: mesh.retry.on[0]: expected an integer from 400 to 599 or retriable-header:NAME or one of connect-failure, refused-stream, reset, gateway-error, 5xx, found "conect-failure"; did you mean "connect-failure"?'
    ]
  },
  {
    name: 'a retry status out of range',
    yaml: `
mesh: { retry: { on: [200] } }
`,
    faults: [
      '2:23: mesh.retry.on[0]: expected an integer from 400 to 599 or retriable-header:NAME or one of connect-failure, refused-stream, reset, gateway-error, 5xx, found 200'
    ]
  },
  {
    name: 'a method in lower case',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - name: one
    match: { path: /a, methods: [gett] }
    service: a
`,
    faults: [
      '5:34: routes[0].match.methods[0]: expected one of ACL, BIND, CHECKOUT, COPY, DELETE, GET, HEAD, LINK, LOCK, M-SEARCH, MERGE, MKACTIVITY, MKCALENDAR, MKCOL, MOVE, NOTIFY, OPTIONS, PATCH, POST, PROPFIND, PROPPATCH, PURGE, PUT, QUERY, REBIND, REPORT, SEARCH, SOURCE, SUBSCRIBE, TRACE, UNBIND, UNLINK, UNLOCK, UNSUBSCRIBE, found "gett"; did you mean "GET"?'
    ]
  },
  {
    name: 'a bad CIDR',
    yaml: `
listen:
  trustProxy: [10.0.0.0/8, 10.0.0.0/33, ten]
`,
    faults: [
      '3:28: listen.trustProxy[1]: expected an address or a range such as 10.0.0.0/8, found "10.0.0.0/33"',
      '3:41: listen.trustProxy[2]: expected an address or a range such as 10.0.0.0/8, found "ten"'
    ]
  },
  {
    name: 'the export of spans',
    yaml: `
tracing:
  otlp:
    http:
      endpoint: http://me:hunter2@collector:4318/v1/traces
      headers: { "a b": c, Content-Type: x, x-a: "1", X-A: "2", x-b: "\\n" }
      tls: { cert: own.crt, key: own.key }
  sampleRate: 2
  capturedRequestHeaders: [x-tenant, Authorization, x-api-key]
  trustClient: nobody
  queue: { maxBatch: 0 }
`,
    faults: [
      '5:17: tracing.otlp.http.endpoint: write credentials under headers, as Authorization',
      '6:18: tracing.otlp.http.headers["a b"]: expected the name of a header',
      '6:28: tracing.otlp.http.headers.Content-Type: the gateway itself sets it',
      '6:55: tracing.otlp.http.headers.X-A: the header is set twice',
      '6:70: tracing.otlp.http.headers.x-b: the value has characters that a header cannot have',
      '7:7: tracing.otlp.http.tls: needs an endpoint with https',
      '8:15: tracing.sampleRate: expected a number from 0 to 1 or a percentage from 0% to 100%, found 2',
      '9:38: tracing.capturedRequestHeaders[1]: the name of Authorization suggests a secret, which must not be in traces',
      '9:53: tracing.capturedRequestHeaders[2]: the name of x-api-key suggests a secret, which must not be in traces',
      '10:16: tracing.trustClient: expected true or false or proxies, found "nobody"',
      '11:22: tracing.queue.maxBatch: expected an integer from 1 to 10000, found 0'
    ]
  },
  {
    name: 'the certificates for the export of spans',
    yaml: `
tracing: { otlp: { http: { endpoint: https://collector, tls: { ca: none.pem, cert: private.pem } } } }
`,
    faults: [
      '2:62: tracing.otlp.http.tls: cert and key need each other',
      (dir) => `2:68: tracing.otlp.http.tls.ca: no such file: ${dir}/none.pem`,
      (dir) => `2:84: tracing.otlp.http.tls.cert: expected a certificate, found a private key: ${dir}/private.pem`
    ]
  },
  {
    name: 'spans without their export',
    yaml: `
tracing: { otlp: { grpc: { endpoint: "collector:4317" } }, zipkin: {} }
`,
    faults: [
      '2:18: tracing.otlp: missing key "http"',
      '2:20: tracing.otlp.grpc: unknown key; spans are exported over HTTP: write http: { endpoint: "http://HOST:4318/v1/traces" }',
      '2:60: tracing.zipkin: unknown key; spans are exported by OTLP: write otlp: { http: { endpoint: … } }'
    ]
  },
  {
    name: 'spans of routes without the section',
    yaml: `
edge: { tracing: { sampleRate: 50% } }
services: { a: { instances: [http://127.0.0.1:1] } }
routes: [{ name: one, match: { path: / }, service: a, edge: { tracing: true } }]
`,
    faults: [
      '2:18: edge.tracing: needs the top-level "tracing", which is not set',
      '4:72: routes[0].edge.tracing: needs the top-level "tracing", which is not set'
    ]
  },
  {
    name: 'a URL of another scheme',
    yaml: `
redis: { url: http://127.0.0.1 }
`,
    faults: ['2:15: redis.url: expected a URL that starts with redis:// or rediss://, found "http://127.0.0.1"']
  },
  {
    name: 'a URL with a password',
    yaml: `
redis: { url: http://:hunter2@127.0.0.1 }
`,
    faults: ['2:15: redis.url: expected a URL that starts with redis:// or rediss://, found "http://***@127.0.0.1"']
  },
  {
    name: 'a URL with a password that has a slash',
    yaml: `
redis: { url: "http://:hunt/er2@127.0.0.1" }
`,
    faults: ['2:15: redis.url: expected a URL that starts with redis:// or rediss://, found "http://***@127.0.0.1"']
  },
  {
    name: 'a URL without a host',
    yaml: `
discovery: { consul: { url: "http://" } }
`,
    faults: ['2:29: discovery.consul.url: expected a URL that starts with http:// or https://, found "http://"']
  },
  {
    name: 'a service name in capitals',
    yaml: `
services:
  Orders: { instances: [http://h] }
`,
    faults: ['3:3: services.Orders: expected a name of a-z, 0-9 and dashes, at most 63 characters as its key']
  },
  {
    name: 'a route name with a space',
    yaml: `
services: { a: { instances: [http://h] } }
routes: [{ name: one two, match: { path: /a }, service: a }]
`,
    faults: ['3:18: routes[0].name: expected a name of a-z, 0-9 and dashes, at most 63 characters, found "one two"']
  },
  {
    name: 'a short secret',
    yaml: `
edge:
  jwt: { secret: hunter2 }
`,
    faults: ['3:18: edge.jwt.secret: expected a string of at least 32 characters, found 7']
  },
  {
    name: 'a number as secret',
    yaml: `
edge:
  jwt: { secret: 12345 }
`,
    faults: ['3:18: edge.jwt.secret: expected a string of at least 32 characters, found a number; put it in quotes']
  },
  {
    name: 'a token that is a list',
    yaml: `
discovery: { consul: { url: http://h, token: [hunter2] } }
`,
    faults: ['2:46: discovery.consul.token: expected a string, found a list']
  },
  {
    name: 'consumers',
    yaml: `
consumers:
  - me
  - { name: "a|b" }
  - { name: alice, jwt: { sub: a } }
  - { name: alice }
  - { name: bob, jwt: { sub: a } }
`,
    faults: [
      '3:5: consumers[0]: expected a mapping, found a string',
      '4:13: consumers[1].name: expected a name of at most 256 characters, without vertical bars, found "a|b"',
      '6:13: consumers[3].name: the same name is declared on line 5',
      '7:30: consumers[4].jwt.sub: the same credential is declared on line 5'
    ]
  },
  {
    name: 'consumers as a mapping',
    yaml: `
consumers: { alice: { groups: [staff] } }
redis: 5
`,
    faults: [
      '2:14: consumers.alice: unknown key; write a list: [{ name: alice, … }], or file: PATH or consul: { key: … }',
      '3:8: redis: expected a mapping, found 5'
    ]
  },
  {
    name: 'a file of consumers that is no name',
    yaml: 'consumers: { file: [] }',
    faults: ['1:20: consumers.file: expected a string, found an empty list']
  },
  {
    name: 'options of a consumer that only a route can have',
    yaml: `
consumers:
  - { name: alice, edge: { cors: { origin: x }, jwt: false, rateLimt: false } }
  - { username: bob }
`,
    faults: [
      `3:28: consumers[0].edge.cors: unknown key; it takes effect before the consumer is known, or for a route as a whole; ${owned}`,
      `3:49: consumers[0].edge.jwt: unknown key; it identifies the consumer, so it cannot depend on one; ${owned}`,
      '3:61: consumers[0].edge.rateLimt: unknown key; did you mean "rateLimit"?',
      '4:5: consumers[1]: missing key "name"',
      '4:7: consumers[1].username: unknown key; write it under "name"'
    ]
  },
  {
    name: 'plugins of a group that are no list',
    yaml: `
services: { a: { instances: [http://h] } }
groups: { g: { plugins: {} } }
routes: [{ name: a, match: { path: / }, service: a, group: g }, { name: b, match: { path: /b }, service: a, plugins: 5 }]
`,
    faults: [
      '3:25: groups.g.plugins: expected a list, found an empty mapping',
      '4:118: routes[1].plugins: expected a list, found 5'
    ]
  },
  {
    name: 'consumers of several issuers',
    yaml: `
services: { a: { instances: [http://a] } }
routes: [{ name: a, match: { path: / }, service: a, edge: { jwt: { secret: "0123456789abcdef0123456789abcdef", issuer: [https://a, https://b] } } }]
consumers: [{ name: alice, jwt: { sub: a } }, { name: bob, jwt: { sub: a, issuer: https://a } }]
`,
    faults: ['4:33: consumers[0].jwt: tokens of several issuers are accepted; add the issuer']
  },
  {
    name: 'consumers of several providers of logins, and of several endpoints',
    yaml: `
services: { a: { instances: [http://a] } }
groups:
  one: { edge: { oidc: { issuer: https://a, clientId: a, session: { secrets: ["0123456789abcdef0123456789abcdef"] } }, introspection: { url: http://a/i, clientId: a, clientSecret: a } } }
routes:
  - { name: a, group: one, match: { path: /a }, service: a }
  - { name: b, group: one, match: { path: /b }, split: [{ service: a, match: { consumers: [bob, amy] } }, { service: a, weight: 1 }], edge: { introspection: { url: http://b/i, clientId: a, clientSecret: a }, oidc: { issuer: https://b, clientId: b, callbackPath: /b/callback, logout: { path: /b/logout }, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
consumers:
  - { name: alice, oidc: a, introspection: a }
  - { name: bob, oidc: { sub: a, issuer: https://a }, introspection: { sub: a, issuer: https://a } }
  - { name: carl, oidc: { sub: c } }
`,
    faults: [
      '7:97: routes[1].split[0].match.consumers[1]: tokens of several issuers are accepted, so consumers are named ISSUER|SUB: "ISSUER|amy"',
      '9:26: consumers[0].oidc: tokens of several issuers are accepted; write { sub, issuer }',
      '9:44: consumers[0].introspection: tokens of several issuers are accepted; write { sub, issuer }',
      '11:25: consumers[2].oidc: tokens of several issuers are accepted; add the issuer'
    ]
  },
  {
    name: 'logins of several clients with the same paths or cookie',
    yaml: `
services: { a: { instances: [http://a] } }
groups:
  one: { edge: { oidc: { issuer: https://a, clientId: a, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
routes:
  - { name: a, group: one, match: { path: /a, hosts: [a.example] }, service: a }
  - { name: b, match: { path: /b, hosts: ["*.example"] }, service: a, edge: { oidc: { issuer: https://b, clientId: b, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
  - { name: c, match: { path: /c, hosts: [c.test] }, service: a, edge: { oidc: { issuer: https://b, clientId: c, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
  - { name: d, match: { path: /d, hosts: [d.test] }, service: a, edge: { oidc: { issuer: https://a, clientId: a, authorizationParams: { acr_values: mfa }, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
  - { name: e, match: { path: /e, hosts: [c.test] }, service: a, edge: { oidc: { issuer: https://b, clientId: d, callbackPath: /e/callback, logout: { path: /oidc/callback }, session: { secrets: ["0123456789abcdef0123456789abcdef"] } } } }
`,
    faults: [
      '7:85: routes[1].edge.oidc.callbackPath: "/oidc/callback" is also a path of another client, on line 4, on the same host; set another one here',
      '7:85: routes[1].edge.oidc.logout.path: "/oidc/logout" is also a path of another client, on line 4, on the same host; set another one here',
      '9:80: routes[3].edge.oidc: uses the same cookie as on line 4, with another client, or other settings of "session", scopes, userinfo or authorizationParams; make them equal, or set session.cookie, callbackPath and logout.path here',
      '10:157: routes[4].edge.oidc.logout.path: "/oidc/callback" is also a path of another client, on line 8, on the same host; set another one here'
    ]
  },
  {
    name: 'no methods',
    yaml: `
services: { a: { instances: [http://h] } }
routes: [{ name: a, match: { path: /a, methods: [] }, service: a }]
`,
    faults: ['3:49: routes[0].match.methods: expected a list with at least one item, found an empty list']
  },
  {
    name: 'a variable that is not set',
    yaml: `
listen:
  port: \${NOWHERE}
`,
    faults: ['3:9: listen.port: environment variable NOWHERE is not set, and has no default']
  },
  {
    name: 'a malformed variable',
    yaml: `
listen: { host: "\${A B}" }
`,
    faults: [
      '2:17: listen.host: malformed variable: write ${NAME} or ${NAME:-default}, and $${ for the characters themselves'
    ]
  },
  {
    name: 'a variable of the wrong type',
    yaml: `
listen: { port: \${WORD} }
`,
    faults: ['2:17: listen.port: expected an integer from 0 to 65535, found a string (from ${WORD})']
  },
  {
    name: 'an unknown service',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: aa
`,
    faults: ['7:14: routes[0].service: unknown service "aa"; did you mean "a"?']
  },
  {
    name: 'an unknown service that is similar to no other',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: zebra
`,
    faults: ['7:14: routes[0].service: unknown service "zebra"']
  },
  {
    name: 'an unknown service with the name of an object method',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: constructor
`,
    faults: ['7:14: routes[0].service: unknown service "constructor"']
  },
  {
    name: 'an unknown service in a split',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    split: [{ service: a, weight: 1 }, { service: bb, weight: 1 }]
`,
    faults: ['7:51: routes[0].split[1].service: unknown service "bb"']
  },
  {
    name: 'neither service nor split',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
`,
    faults: ['5:5: routes[0]: missing key "service", "split", "compose", "response", "redirect", "files" or "portal"']
  },
  {
    name: 'service and split',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    split: [{ service: a, weight: 1 }]
`,
    faults: ['8:5: routes[0].split: a route has either a service or a split, not both']
  },
  {
    name: 'weights of 0',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    split: [{ service: a, weight: 0 }]
`,
    faults: ['7:12: routes[0].split: all weights are 0, so no service gets any traffic']
  },
  {
    name: 'two routes with one name',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
  - name: one
    match: { path: /two }
    service: a
`,
    faults: ['8:11: routes[1].name: duplicate route name "one"; it is also on line 5']
  },
  {
    name: 'two sources of instances',
    yaml: `
services:
  a:
    instances: [http://h]
    dns: { host: h, port: 1 }
`,
    faults: ['5:5: services.a.dns: a service has one source of instances, but this one has instances and dns']
  },
  {
    name: 'Consul by default, not configured',
    yaml: `
services:
  a: {}
`,
    faults: [
      '3:6: services.a: has no source of instances; set instances, dns or file, or a registry that finds it by its name: discovery.consul, discovery.file or discovery.eureka'
    ]
  },
  {
    name: 'Consul by name, not configured',
    yaml: `
services:
  a: { consul: { service: b } }
`,
    faults: ['3:16: services.a.consul: needs discovery.consul, which is not set']
  },
  {
    name: 'DNS without a port',
    yaml: `
services:
  a: { dns: { host: h } }
`,
    faults: ['3:13: services.a.dns: needs a port, or srv: true']
  },
  {
    name: 'HTTP/2 without TLS',
    yaml: `
listen:
  http2: true
`,
    faults: ['3:10: listen.http2: HTTP/2 is negotiated during the TLS handshake, so it needs listen.tls']
  },
  {
    name: 'missing TLS files',
    yaml: `
listen:
  tls:
    cert: none.pem
    key: ./key.pem
`,
    faults: [(dir) => `4:11: listen.tls.cert: no such file: ${dir}/none.pem`]
  },
  {
    name: 'no key for tokens',
    yaml: `
edge:
  jwt: { issuer: me }
`,
    faults: ['3:8: edge.jwt: needs exactly one of secret, publicKey, jwks, discovery and issuers']
  },
  {
    name: 'two keys for tokens',
    yaml: `
edge:
  jwt:
    publicKey: rsa.pem
    jwks: https://h/k
`,
    faults: ['5:5: edge.jwt.jwks: set exactly one of publicKey and jwks']
  },
  {
    name: 'URLs of metadata, and credentials, where they do not belong',
    yaml: `
services: { a: { instances: [http://h] } }
edge:
  oidc:
    issuer: https://me:hunter2@id.example.com
    clientId: a
    session: { secrets: [a secret that is long enough for it] }
routes:
  - { name: one, match: { path: /one }, service: a, edge: { jwt: { jwks: https://id.example.com/.well-known/openid-configuration } } }
  - { name: two, match: { path: /two }, service: a, edge: { jwt: { jwks: https://id.example.com/.well-known/oauth-authorization-server/a } } }
  - { name: tre, match: { path: /tre }, service: a, edge: { jwt: { issuer: "https://me:hunter2@id.example.com", discovery: true } } }
  - { name: fou, match: { path: /fou }, service: a, edge: { jwt: { jwks: "ftp://id.example.com/keys?code=hunter2" } } }
  - { name: fiv, match: { path: /fiv }, service: a, edge: { introspection: { url: "http://h", clientId: a, clientSecret: b, clientAuth: client_secret_post } } }
`,
    faults: [
      '5:13: edge.oidc.issuer: an issuer has no user and password; remove them',
      '9:74: routes[0].edge.jwt.jwks: these are the metadata of an issuer and no key set: write issuer: ISSUER and discovery: true, or this URL under discovery, in place of jwks',
      '10:74: routes[1].edge.jwt.jwks: these are the metadata of an issuer and no key set: write issuer: ISSUER and discovery: true, or this URL under discovery, in place of jwks',
      '11:76: routes[2].edge.jwt.issuer: an issuer has no user and password: these belong to the URL of the metadata; write it under discovery, in place of true',
      '12:74: routes[3].edge.jwt.jwks: expected a URL that starts with http:// or https://, found "ftp://id.example.com/keys?***"',
      '13:137: routes[4].edge.introspection.clientAuth: expected basic (client_secret_basic) or post (client_secret_post), found "client_secret_post"'
    ]
  },
  {
    name: 'HS256 with a published key set',
    yaml: `
edge:
  jwt: { jwks: https://h/k, algorithms: [RS256, HS256] }
`,
    faults: ['3:49: edge.jwt.algorithms[1]: HS256 cannot be used with jwks; use RS* or PS* or ES* or EdDSA']
  },
  {
    name: 'HS256 with a public key',
    yaml: `
edge:
  jwt: { publicKey: rsa.pem, algorithms: [HS256] }
`,
    faults: ['3:43: edge.jwt.algorithms[0]: HS256 cannot be used with a public key of type rsa; use RS* or PS*']
  },
  {
    name: 'RS256 with a secret',
    yaml: `
edge:
  jwt: { secret: 0123456789abcdef0123456789abcdef, algorithms: [RS256] }
`,
    faults: ['3:65: edge.jwt.algorithms[0]: RS256 cannot be used with secret; use HS*']
  },
  {
    name: 'RS256 with an elliptic key',
    yaml: `
edge:
  jwt: { publicKey: ec.pem, algorithms: [ES256, RS256] }
`,
    faults: ['3:49: edge.jwt.algorithms[1]: RS256 cannot be used with a public key of type ec; use ES256']
  },
  {
    name: 'an algorithm of another curve',
    yaml: `
edge:
  jwt: { publicKey: ec.pem, algorithms: [ES384] }
`,
    faults: ['3:42: edge.jwt.algorithms[0]: ES384 cannot be used with a public key of type ec; use ES256']
  },
  {
    name: 'a public key that is too weak',
    yaml: `
edge:
  jwt: { publicKey: weak.pem }
`,
    faults: [
      '3:21: edge.jwt.publicKey: this key cannot verify tokens; use RSA of 2048 bits or more, EC on P-256, P-384 or P-521, or Ed25519'
    ]
  },
  {
    name: 'an unknown algorithm',
    yaml: `
edge:
  jwt: { publicKey: ec.pem, algorithms: [none] }
`,
    faults: [
      '3:42: edge.jwt.algorithms[0]: expected one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, found "none"'
    ]
  },
  {
    name: 'a missing file of a public key',
    yaml: `
edge:
  jwt: { publicKey: none.pem }
`,
    faults: [(dir) => `3:21: edge.jwt.publicKey: neither a PEM key nor a file that can be read: ${dir}/none.pem`]
  },
  {
    name: 'a malformed public key',
    yaml: `
edge:
  jwt: { publicKey: key.pem }
`,
    faults: ['3:21: edge.jwt.publicKey: not a public key in PEM form']
  },
  {
    name: 'a private key as public key',
    yaml: `
edge:
  jwt: { publicKey: private.pem }
`,
    faults: ['3:21: edge.jwt.publicKey: expected a public key, found a private key']
  },
  {
    name: 'a limit in Redis, not configured',
    yaml: `
edge:
  rateLimit: { max: 1, window: 1s, store: redis }
`,
    faults: ['3:43: edge.rateLimit.store: needs the top-level "redis", which is not set']
  },
  {
    name: 'a limit by an unknown key',
    yaml: `
edge:
  rateLimit: { max: 1, window: 1s, by: user }
`,
    faults: [
      '3:40: edge.rateLimit.by: expected a list with at least one item or ip, consumer, route, header:NAME or claim:NAME, found "user"'
    ]
  },
  {
    name: 'a limit by consumer without jwt',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    edge:
      rateLimit: { max: 1, window: 1s, by: consumer }
`,
    faults: [
      '9:44: routes[0].edge.rateLimit.by: consumer: nothing on this route identifies the consumer; add mtlsAuth, keyAuth, hmacAuth, messageSignature, basicAuth, jwt, introspection, authorizer, oidc, forwardAuth or a plugin that declares provides: [consumer]'
    ]
  },
  {
    name: 'an inherited limit by consumer without jwt',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    edge: { jwt: false }
edge:
  jwt: { jwks: https://h/k }
  rateLimit: { max: 1, window: 1s, by: consumer }
`,
    faults: [
      '8:11: routes[0].edge.rateLimit.by: consumer (inherited): nothing on this route identifies the consumer; add mtlsAuth, keyAuth, hmacAuth, messageSignature, basicAuth, jwt, introspection, authorizer, oidc, forwardAuth or a plugin that declares provides: [consumer]'
    ]
  },
  {
    name: 'origins that no browser sends, and wildcards that others could register',
    yaml: `
edge:
  cors:
    origin:
      - app.example.com
      - https://app.example.com/
      - HTTPS://APP.example.com
      - https://app.example.com:443
      - https://münchen.example
      - https://*example.com
      - https://*
      - https://a.*.example.com
      - https://a.example.com, https://b.example.com
      - /app.example.com$/
      - /^https:..(?=app).example.com$/
`,
    faults: [
      '5:9: edge.cors.origin[0]: an origin has a scheme: write "https://app.example.com"',
      '6:9: edge.cors.origin[1]: an origin has no path: write "https://app.example.com"',
      '7:9: edge.cors.origin[2]: browsers send "https://app.example.com": write that',
      '8:9: edge.cors.origin[3]: browsers send "https://app.example.com": write that',
      '9:9: edge.cors.origin[4]: browsers send "https://xn--mnchen-3ya.example": write that',
      '10:9: edge.cors.origin[5]: "*example.com" would allow hosts of others, such as evilexample.com: write "*.example.com"',
      '11:9: edge.cors.origin[6]: "*" would allow hosts of anybody: write "*" for all origins',
      '12:9: edge.cors.origin[7]: a "*" may stand once, in the first label of the host, or for the port',
      '13:9: edge.cors.origin[8]: "https://a.example.com, https://b.example.com" is not an origin: scheme, host and port, as https://app.example.com',
      '14:9: edge.cors.origin[9]: not a regular expression that is supported here: it must begin with "^", since it is compared with the whole text',
      '15:9: edge.cors.origin[10]: not a regular expression that is supported here: "(?" other than "(?:" is not supported'
    ]
  },
  {
    name: 'CORS lists with malformed headers and methods',
    yaml: `
edge:
  cors: { origin: app.example.com, exposedHeaders: ["x-a\\nx-b", "*"], allowedHeaders: ["x a"], methods: [get] }
`,
    faults: [
      '3:53: edge.cors.exposedHeaders[0]: expected a header name, found "x-a\\nx-b"',
      '3:88: edge.cors.allowedHeaders[0]: expected a header name, found "x a"',
      '3:106: edge.cors.methods[0]: expected a method in capitals, or *, found "get"'
    ]
  },
  {
    name: 'headers that the gateway sets itself, and duplicate headers',
    yaml: `
edge:
  requestId: { header: Host }
  jwt:
    secret: a secret that is long enough for this
    forward:
      sub: content-length
      iss: host
      org: X_Forwarded_For
      role: x-role
      roles: X_Role
  rateLimit: { max: 1, window: 1s, by: "header:cookie" }
routes:
  - name: a
    match: { path: / }
    service: a
    edge: { rateLimit: { max: 1, window: 1s, by: "header:x y" } }
services: { a: { instances: ["http://127.0.0.1:1"] } }
`,
    faults: [
      '3:24: edge.requestId.header: "Host" has a meaning of its own and cannot carry the request id',
      '7:12: edge.jwt.forward.sub: "content-length" is set by the gateway itself; choose another name, such as x-sub',
      '8:12: edge.jwt.forward.iss: "host" is set by the gateway itself; choose another name, such as x-iss',
      '9:12: edge.jwt.forward.org: "X_Forwarded_For" is set by the gateway itself; choose another name, such as x-org',
      '11:14: edge.jwt.forward.roles: "X_Role" already carries the claim "role"',
      '12:40: edge.rateLimit.by: the Cookie header holds all cookies in any order, so one client may send many values; choose another header',
      '17:50: routes[0].edge.rateLimit.by: expected a list with at least one item or ip, consumer, route, header:NAME or claim:NAME, found "header:x y"'
    ]
  },
  {
    name: 'several issuers of tokens, and discovery',
    yaml: `
services: { a: { instances: ["http://127.0.0.1:1"] } }
edge:
  jwt:
    audience: api
    secret: a secret that is long enough for this
    issuers:
      - { issuer: https://a, secret: a secret that is long enough for this, algorithms: [RS256] }
      - { issuer: https://a, discovery: true, jwks: https://a/keys }
      - { issuer: b, discovery: true }
      - { issuer: https://c }
      - { secret: a secret that is long enough for this }
      - { issuer: https://e, publicKey: none.pem, jwksMaxAge: 1m }
routes:
  - { name: a, match: { path: /a }, service: a, edge: { jwt: { discovery: true } } }
  - { name: b, match: { path: /b }, service: a, edge: { jwt: { issuer: [https://a, https://b], discovery: https://a/m } } }
  - { name: c, match: { path: /c }, service: a, edge: { jwt: { issuer: https://a, discovery: false } } }
  - { name: d, match: { path: /d }, service: a, edge: { jwt: { issuers: [] } } }
`,
    faults: [
      '5:5: edge.jwt.audience: write it within the items of issuers',
      '6:5: edge.jwt.secret: write it within the items of issuers',
      '8:90: edge.jwt.issuers[0].algorithms[0]: RS256 cannot be used with secret; use HS*',
      '9:19: edge.jwt.issuers[1].issuer: "https://a" is listed twice',
      '9:30: edge.jwt.issuers[1].discovery: set exactly one of jwks and discovery',
      '10:33: edge.jwt.issuers[2].discovery: the issuer is no URL; write the URL of the metadata here',
      '11:9: edge.jwt.issuers[3]: needs exactly one of secret, publicKey, jwks and discovery',
      '12:9: edge.jwt.issuers[4]: missing key "issuer"',
      (dir) => `13:41: edge.jwt.issuers[5].publicKey: neither a PEM key nor a file that can be read: ${dir}/none.pem`,
      '13:51: edge.jwt.issuers[5].jwksMaxAge: unknown key',
      '15:75: routes[0].edge.jwt.discovery: metadata are those of one issuer: set issuer',
      '16:107: routes[1].edge.jwt.discovery: metadata are those of one issuer: write each of them as an item of issuers',
      '17:94: routes[2].edge.jwt.discovery: expected true or a URL that starts with http:// or https://, found false',
      '18:73: routes[3].edge.jwt.issuers: expected a list with at least one item, found an empty list'
    ]
  },
  {
    name: 'step-up authentication and bound tokens',
    yaml: `
services: { a: { instances: ["http://127.0.0.1:1"] } }
edge: { jwt: { secret: a secret that is long enough for this, boundTokens: require } }
routes:
  - { name: a, match: { path: /a }, service: a }
  - { name: b, match: { path: /b }, service: a }
  - { name: c, match: { path: /c }, service: a, edge: { jwt: { secret: a secret that is long enough for this, acrValues: [a b], maxAuthAge: 0s, boundTokens: always } } }
  - { name: d, match: { path: /d }, service: a, edge: { jwt: { secret: a secret that is long enough for this, boundTokens: require } } }
`,
    faults: [
      '3:76: edge.jwt.boundTokens: no listener requests client certificates for route a, so all of its requests are refused; set clientCertificate: { mode: request, ca: FILE } under listen.tls',
      '7:123: routes[2].edge.jwt.acrValues[0]: expected an acr, without blanks and quotes, found "a b"',
      '7:141: routes[2].edge.jwt.maxAuthAge: expected a duration such as 1s, 1h or 30d, found "0s"',
      '7:158: routes[2].edge.jwt.boundTokens: expected one of check, require, ignore, found "always"',
      '8:124: routes[3].edge.jwt.boundTokens: no listener requests client certificates for route d, so all of its requests are refused; set clientCertificate: { mode: request, ca: FILE } under listen.tls'
    ]
  },
  {
    name: 'places of tokens, and claims in headers',
    yaml: `
edge:
  jwt:
    secret: a secret that is long enough for this
    from: { header: false }
    forward: { sub: [x-user, X_User], org: [] }
    forwardClaims: { header: x-user, encoding: hex }
    scopes: ["a b"]
    claims: {}
routes:
  - { name: a, match: { path: /a }, service: a, edge: { jwt: { secret: a secret that is long enough for this, from: { header: Cookie } } } }
  - { name: b, match: { path: /b }, service: a, edge: { jwt: { secret: a secret that is long enough for this, from: { header: te } } } }
services: { a: { instances: ["http://127.0.0.1:1"] } }
`,
    faults: [
      '5:11: edge.jwt.from: has no place for the token: set header, query or cookie',
      '6:30: edge.jwt.forward.sub[1]: "X_User" already carries the claim "sub"',
      '6:44: edge.jwt.forward.org: expected a list with at least one item or a header name, found an empty list',
      '7:30: edge.jwt.forwardClaims.header: "x-user" already carries the claim "sub"',
      '7:48: edge.jwt.forwardClaims.encoding: expected one of base64, base64url, found "hex"',
      '8:14: edge.jwt.scopes[0]: expected a scope, without blanks and quotes, found "a b"',
      '9:13: edge.jwt.claims: expected a mapping with at least one key, found an empty mapping',
      '11:127: routes[0].edge.jwt.from.header: "Cookie" has another meaning; choose another header, such as x-token',
      '12:127: routes[1].edge.jwt.from.header: "te" has another meaning; choose another header, such as x-token'
    ]
  },
  {
    name: 'a consumer of a split, where several issuers have one of that name',
    yaml: `
edge: { jwt: { secret: a secret that is long enough for this, issuer: [https://a, https://b] } }
services: { a: { instances: ["http://127.0.0.1:1"] } }
routes:
  - name: a
    match: { path: /a }
    split: [{ service: a, match: { consumers: ["https://a|alice", alice] } }, { service: a, weight: 1 }]
  - name: b
    match: { path: /b }
    split: [{ service: a, match: { consumers: [alice] } }, { service: a, weight: 1 }]
    edge: { jwt: false }
`,
    faults: [
      '7:67: routes[0].split[0].match.consumers[1]: tokens of several issuers are accepted, so consumers are named ISSUER|SUB: "https://a|alice"'
    ]
  },
  {
    name: 'the secret of the examples on a public address',
    yaml: `
listen: { host: 0.0.0.0 }
edge: { jwt: { secret: "for development only, change it in production" } }
`,
    faults: [
      '3:24: edge.jwt.secret: the secret of the examples is public: set another one, or let all listeners be on loopback'
    ]
  },
  {
    name: 'maxPerAddress beside a limit by address',
    yaml: `
edge: { rateLimit: { max: 1, window: 1s, maxPerAddress: 10 } }
`,
    faults: ['2:42: edge.rateLimit.maxPerAddress: has an effect only with by: header:NAME; this limit is by: ip']
  },
  {
    name: 'rate limits that cannot work',
    yaml: `
edge:
  rateLimit:
    - { max: 5, window: 1m, cost: 6 }
    - { max: 5, window: 1m, burst: 9 }
    - { max: 5, window: 1h, algorithm: token-bucket, burst: 2, cost: 3 }
    - { max: 5, window: 1d, onFailure: closed }
    - { max: 5, window: 30d, by: [ip, "header:cookie"], maxPerAddress: 9 }
    - { max: 5, window: 2d, lease: 5, keepCostHeader: true }
    - { max: 5, window: 3d, maxConcurrent: 5 }
`,
    faults: [
      '4:35: edge.rateLimit[0].cost: no request can ever pass: at most 5 can be used at once',
      '5:29: edge.rateLimit[1].burst: has an effect only with algorithm: token-bucket',
      '6:70: edge.rateLimit[2].cost: no request can ever pass: at most 2 can be used at once',
      '7:29: edge.rateLimit[3].onFailure: has an effect only with store: redis',
      '8:34: edge.rateLimit[4].by: the Cookie header holds all cookies in any order, so one client may send many values; choose another header',
      '9:29: edge.rateLimit[5].lease: has an effect only with store: redis',
      '9:39: edge.rateLimit[5].keepCostHeader: has an effect only with costHeader',
      '10:9: edge.rateLimit[6].max: unknown key; write two limits: [{ max: …, window: … }, { maxConcurrent: … }]',
      '10:17: edge.rateLimit[6].window: unknown key; write two limits: [{ max: …, window: … }, { maxConcurrent: … }]'
    ]
  },
  {
    name: 'rate limits that are none',
    yaml: `
edge: { rateLimit: [null, 5, { maxConcurrent: a }] }
routes: [null]
consumers: [null, { name: b, edge: { rateLimit: null } }, { name: c, edge: { rateLimit: { max: 1, window: 1s, cost: 5 } } }]
`,
    faults: [
      '2:21: edge.rateLimit[0]: expected a mapping, found nothing; write {} to leave it empty',
      '2:27: edge.rateLimit[1]: expected a mapping, found 5',
      '2:47: edge.rateLimit[2].maxConcurrent: expected an integer of at least 1, found "a"',
      '3:10: routes[0]: expected a mapping, found nothing; write {} to leave it empty',
      '4:13: consumers[0]: expected a mapping, found nothing; write {} to leave it empty',
      '4:49: consumers[1].edge.rateLimit: expected false or a list with at least one item or a mapping, found nothing; write {} to leave it empty',
      '4:117: consumers[2].edge.rateLimit.cost: no request can ever pass: at most 1 can be used at once'
    ]
  },
  {
    name: 'two rate limits with one counter',
    yaml: `
edge: { rateLimit: [{ max: 5, window: 1m }, { max: 5, window: 1h }, { max: 7, window: 1m }] }
`,
    faults: ['2:69: edge.rateLimit[2]: counts the same requests as number 1 of the list; remove one of them']
  },
  {
    name: 'a rate limit of a list by consumer, without a concern that identifies it',
    yaml: `
edge: { rateLimit: [{ max: 5, window: 1m }, { max: 5, window: 1h, by: [ip, "claim:tenant"] }] }
services: { a: { instances: ["http://127.0.0.1:1"] } }
routes: [{ name: a, match: { path: / }, service: a }]
`,
    faults: [
      '4:10: routes[0].edge.rateLimit[1].by: claims (inherited): nothing on this route verifies a token with claims; add jwt, introspection, oidc or a plugin that declares provides: [consumer]'
    ]
  },
  {
    name: 'the request id as a claim',
    yaml: `
edge: { jwt: { secret: a secret that is long enough for this, forward: { sub: x-request-id } } }
`,
    faults: [
      '2:79: edge.jwt.forward.sub: "x-request-id" is set by the gateway for each request; choose another name, such as x-sub'
    ]
  },
  {
    name: 'a plugin without a source',
    yaml: `
plugins:
  - options: {}
`,
    faults: ['3:5: plugins[0]: missing key "path" or "package"']
  },
  {
    name: 'a plugin with two sources',
    yaml: `
plugins:
  - path: plugin.ts
    package: it
`,
    faults: ['4:5: plugins[0].package: a plugin has either a path or a package, not both']
  },
  {
    name: 'a missing file of a plugin',
    yaml: `
plugins:
  - path: ./plugn.ts
`,
    faults: [(dir) => `3:11: plugins[0].path: no such file: ${dir}/plugn.ts; did you mean "plugin.ts"?`]
  },
  {
    name: 'a plugin of a package that is not installed',
    yaml: `
plugins:
  - package: jingwei-no-such-plugin
`,
    faults: [
      '3:14: plugins[0].package: no such package: jingwei-no-such-plugin; install it with npm in the folder of this file'
    ]
  },
  {
    name: 'a duration of 0, and one longer than a timer can wait',
    yaml: `
mesh: { timeout: 0s, attemptTimeout: 25d }
`,
    faults: [
      '2:18: mesh.timeout: expected a duration such as 250ms, 15s or 5m, found "0s"',
      '2:38: mesh.attemptTimeout: expected a duration such as 250ms, 15s or 5m, found "25d"'
    ]
  },
  {
    name: 'strip of another path',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    path: { strip: /b }
`,
    faults: ['8:20: routes[0].path.strip: "/b" is not a prefix of "/api/one" that ends at a segment boundary']
  },
  {
    name: 'strip within a segment',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    path: { strip: /ap }
`,
    faults: ['8:20: routes[0].path.strip: "/ap" is not a prefix of "/api/one" that ends at a segment boundary']
  },
  {
    name: 'strip and rewrite',
    yaml: `
services:
  a: { instances: [http://127.0.0.1:9101] }
routes:
  - name: one
    match: { path: /api/one }
    service: a
    path: { strip: /api, rewrite: { prefix: /v2 } }
`,
    faults: ['8:26: routes[0].path.rewrite: a path is either stripped or rewritten, not both']
  },
  {
    name: 'strip of patterns and of several paths',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: a, service: a, match: { path: /a/:id }, path: { strip: true } }
  - { name: b, service: a, match: { path: /b/:id }, path: { rewrite: { prefix: /v2 } } }
  - { name: c, service: a, match: { path: [/c, /d/c] }, path: { strip: /c } }
  - { name: d, service: a, match: { path: /e/:id/f }, path: { strip: /e/:x } }
  - { name: e, service: a, match: { path: /f/v* }, path: { strip: /f/v* } }
  - { name: f, service: a, match: { path: [/g, { exact: /g* }, "/g/{id}"] } }
  - { name: g, service: a, match: { path: [/h/:x, /h/:y] } }
  - { name: h, service: a, match: { path: [] } }
  - { name: i, service: a, match: { path: ["i"] } }
`,
    faults: [
      '4:61: routes[0].path.strip: "/a/:id" is a pattern for the whole path, which has no rest to keep',
      '5:61: routes[1].path.rewrite: "/b/:id" is a pattern for the whole path, which has no rest to keep',
      '6:72: routes[2].path.strip: "/c" is not a prefix of "/d/c" that ends at a segment boundary',
      '7:70: routes[3].path.strip: "/e/:x" is not a prefix of "/e/:id/f" that ends at a segment boundary',
      '8:67: routes[4].path.strip: a prefix cannot contain "*"; true strips all that precedes it',
      '9:57: routes[5].match.path[1].exact: an exact path cannot contain "*"',
      '9:64: routes[5].match.path[2]: "{id}" would be matched literally; write a parameter as ":id"',
      '10:43: routes[6].match.path: two of these paths match the same requests: /h/:y',
      '11:43: routes[7].match.path: expected a path that starts with /, such as /users or /users/:id(^[0-9]+$), { exact: /path }, or a list of these, found an empty list',
      '12:44: routes[8].match.path[0]: expected a path that starts with / or a mapping, found "i"'
    ]
  },
  {
    name: 'rewrites of the whole path',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: a, service: a, match: { path: "/a/:id" }, path: { rewrite: { path: "/b/:di" } } }
  - { name: b, service: a, match: { path: [/b, "/b/:id"] }, path: { rewrite: { path: "/c/*" } } }
  - { name: c, service: a, match: { path: /c }, path: { rewrite: { path: "/d?x" } } }
  - { name: d, service: a, match: { path: /d }, path: { rewrite: { regex: "^/d/(.*)$", to: "/e/$2" } } }
  - { name: e, service: a, match: { path: /e }, path: { rewrite: { regex: "/e", to: "/f" } } }
  - { name: f, service: a, match: { path: /f }, path: { rewrite: { regex: "^/f$" } } }
  - { name: g, service: a, match: { path: /g }, path: { rewrite: { prefix: /h, path: /i } } }
  - { name: h, service: a, match: { path: /h }, path: { strip: true, rewrite: { path: /i } } }
`,
    faults: [
      '4:80: routes[0].path.rewrite.path: "/a/:id" has no parameter ":di"; did you mean "id"?',
      '5:86: routes[1].path.rewrite.path: "/b/:id" has no parameter "*"',
      '6:74: routes[2].path.rewrite.path: a path must not contain "?": it is a plain path',
      '7:92: routes[3].path.rewrite.to: "$2" is no group: the expression has 1',
      '8:75: routes[4].path.rewrite.regex: invalid expression: it must begin with "^", since it is compared with the whole text',
      '9:66: routes[5].path.rewrite: missing key "to"',
      '10:66: routes[6].path.rewrite: a path is rewritten by one of prefix, path, and regex with to',
      '11:70: routes[7].path.rewrite: a path is either stripped or rewritten, not both'
    ]
  },
  {
    name: 'conditions that no request meets',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: a, service: a, match: { path: /a, headers: { x-a: 1, "x a": b, Host: h } } }
  - { name: b, service: a, match: { path: /b, headers: { x-a: "1", X-A: "2", x-b: " 1", x-c: "\\n" } } }
  - { name: c, service: a, match: { path: /c, headers: { x-a: {}, x-b: { regex: "b" }, x-c: { regex: "^b$", present: true } } } }
  - { name: d, service: a, match: { path: /d, cookies: { "a;b": c, d: "e;f" } } }
  - { name: e, service: a, match: { path: /e, query: { a: { rexeg: "^1$" } }, addresses: [10.0.0.0/33] } }
  - { name: f, service: a, priority: 1001, match: { path: /f } }
`,
    faults: [
      '4:63: routes[0].match.headers.x-a: expected a value in quotes, { regex: ^…$ } or { present: true }, found 1',
      '4:66: routes[0].match.headers["x a"]: "x a" is not a name of headers',
      '4:76: routes[0].match.headers.Host: write match.hosts: HTTP/2 has no Host header',
      '5:68: routes[1].match.headers.X-A: the same header as "x-a"',
      '5:83: routes[1].match.headers.x-b: no header can have this value',
      '5:94: routes[1].match.headers.x-c: no header can have this value',
      '6:63: routes[2].match.headers.x-a: expected a value in quotes, { regex: ^…$ } or { present: true }, found an empty mapping',
      '6:81: routes[2].match.headers.x-b.regex: invalid expression: it must begin with "^", since it is compared with the whole text',
      '6:109: routes[2].match.headers.x-c.present: no effect with "regex", which needs a value',
      '7:58: routes[3].match.cookies["a;b"]: "a;b" is not a name of cookies',
      '7:71: routes[3].match.cookies.d: no cookie can have this value',
      '8:61: routes[4].match.query.a.rexeg: unknown key',
      '8:91: routes[4].match.addresses[0]: "10.0.0.0/33" is not a CIDR range: "/" is followed by a number from 0 to 32',
      '9:38: routes[5].priority: expected an integer from -1000 to 1000, found 1001'
    ]
  },
  {
    name: 'ambiguous paths',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: p1, service: a, match: { path: /a//b } }
  - { name: p2, service: a, match: { path: /a/../b } }
  - { name: p3, service: a, match: { path: /a/. } }
  - { name: p4, service: a, match: { path: '/a?b' } }
  - { name: p5, service: a, match: { path: '/a#b' } }
  - { name: p6, service: a, match: { path: { exact: /a%2fb } } }
`,
    faults: [
      '4:44: routes[0].match.path: a match path must not contain "//": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '5:44: routes[1].match.path: a match path must not contain "/..": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '6:44: routes[2].match.path: a match path must not contain "/.": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '7:44: routes[3].match.path: a match path must not contain "?": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '8:44: routes[4].match.path: a match path must not contain "#": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '9:53: routes[5].match.path.exact: a match path must not contain "%": paths are matched after decoding, without dot segments, empty segments, path parameters and queries'
    ]
  },
  {
    name: 'an attempt longer than the call',
    yaml: `
mesh:
  timeout: 3s
  attemptTimeout: 5s
`,
    faults: [
      '4:19: mesh.attemptTimeout: 5s is longer than the timeout of the whole call, 3s, which ends the attempt earlier'
    ]
  },
  {
    name: "an attempt longer than the service's call",
    yaml: `
services:
  a:
    instances: [http://h]
    mesh: { attemptTimeout: 30s }
mesh: { timeout: 20s }
`,
    faults: [
      '5:29: services.a.mesh.attemptTimeout: 30s is longer than the timeout of the whole call, 20s, which ends the attempt earlier'
    ]
  },
  {
    name: "a route's attempt longer than its service's call",
    yaml: `
services:
  a: { instances: [http://h], mesh: { timeout: 1s } }
routes:
  - name: one
    match: { path: / }
    service: a
    mesh: { attemptTimeout: 2s }
`,
    faults: [
      '8:29: routes[0].mesh.attemptTimeout: 2s is longer than the timeout of the whole call, 1s, which ends the attempt earlier'
    ]
  },
  {
    name: 'one port for the listener and the admin port',
    yaml: `
listen: { port: 9000 }
admin: { port: 9000 }
`,
    faults: ['3:16: admin.port: listen.port is 9000, too, and 127.0.0.1 overlaps 0.0.0.0']
  },
  {
    name: 'an instance whose URL has more than scheme, host and port',
    yaml: `
services:
  a:
    instances:
      - http://h/path#a
      - { url: "http://u:hunter2@h?q" }
`,
    faults: [
      '5:9: services.a.instances[0]: an instance is scheme, host and port; this one has a fragment',
      '6:16: services.a.instances[1].url: an instance is scheme, host and port; this one has credentials and a query'
    ]
  },
  {
    name: 'conflicting routes',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - name: one
    match: { path: /users/:id, methods: [GET, PUT], hosts: [A.example.com, b.example.com], headers: { X-A: '1', x-b: '2' } }
    service: a
  - name: two
    match: { path: /users/:name, methods: [HEAD, POST], hosts: [b.example.com, a.example.com], headers: { x-b: '2', x-a: '1' } }
    service: a
`,
    faults: ['8:12: routes[1].match: routes "one" (on line 4) and "two" match the same requests: HEAD /users/:name']
  },
  {
    name: 'several faults, in the order of the file',
    yaml: `
routes:
  - name: one
    match: { path: one }
    servce: a
mesh:
  timeot: 5s
  retry: { attempts: 99 }
listen: { port: -1 }
`,
    faults: [
      '4:20: routes[0].match.path: expected a path that starts with /, such as /users or /users/:id(^[0-9]+$), { exact: /path }, or a list of these, found "one"',
      '5:5: routes[0].servce: unknown key; did you mean "service"?',
      '7:3: mesh.timeot: unknown key; did you mean "timeout"?',
      '8:22: mesh.retry.attempts: expected an integer from 1 to 10, found 99',
      '9:17: listen.port: expected an integer from 0 to 65535, found -1'
    ]
  },
  {
    name: 'malformed paths, and paths that are equal for the router',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: r1, service: a, match: { path: { exact: /a* } } }
  - { name: r2, service: a, match: { path: /a*b } }
  - { name: r3, service: a, match: { path: /c } }
  - { name: r4, service: a, match: { path: /c/ } }
  - { name: r5, service: a, match: { path: /c/* } }
  - { name: r6, service: a, match: { path: { exact: /c } } }
`,
    faults: [
      '4:53: routes[0].match.path.exact: an exact path cannot contain "*"',
      '5:44: routes[1].match.path: "*" is allowed only at the end of a path: "/a" matches it and all paths below, "/a/*" only those below',
      '7:36: routes[3].match: routes "r3" (on line 6) and "r4" match the same requests: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS /c/',
      '8:36: routes[4].match: routes "r3" (on line 6) and "r5" match the same requests: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS /c/*'
    ]
  },
  {
    name: 'patterns of other gateways, and patterns with more than linear cost',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: r1, service: a, match: { path: "/acc/{id}" } }
  - { name: r2, service: a, match: { path: "/users/**" } }
  - { name: r3, service: a, match: { path: "/api/*" }, path: { strip: /api } }
  - { name: r4, service: a, match: { path: [/x, /y] } }
  - { name: r5, service: a, match: { path: "/u/:id(^[a-z]*[a-z]*[a-z]*!$)" } }
  - { name: r6, service: a, match: { path: "/v/{name:[a-z]+}/x" } }
  - { name: r7, service: a, match: { path: "/w;x" } }
  - { name: r8, service: a, match: { path: "/z", hosts: ["[::g]"] } }
`,
    faults: [
      '4:44: routes[0].match.path: "{id}" would be matched literally; write a parameter as ":id"',
      '5:44: routes[1].match.path: "*" is allowed only at the end of a path: "/users" matches it and all paths below, "/users/*" only those below',
      '8:44: routes[4].match.path: invalid pattern: two of its repetitions can match the same characters, so matching a long path can take very long',
      '9:44: routes[5].match.path: "{name:[a-z]+}" would be matched literally; write a parameter as ":name(^[a-z]+$)"',
      '10:44: routes[6].match.path: a match path must not contain ";": paths are matched after decoding, without dot segments, empty segments, path parameters and queries',
      '11:58: routes[7].match.hosts[0]: expected a host name such as api.example.com or *.example.com, or an IPv6 address in brackets, found "[::g]"'
    ]
  },
  {
    name: 'malformed prefixes of a path',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: r1, service: a, match: { path: /a }, path: { rewrite: { prefix: "/v2?x" } } }
  - { name: r2, service: a, match: { path: /b }, path: { rewrite: { prefix: "/v2#x" } } }
  - { name: r3, service: a, match: { path: /c }, path: { rewrite: { prefix: "/%zz" } } }
  - { name: r4, service: a, match: { path: /d }, path: { rewrite: { prefix: "/a/../b" } } }
  - { name: r5, service: a, match: { path: /e }, path: { rewrite: { prefix: "/fine%20/ü b" } } }
`,
    faults: [
      '4:77: routes[0].path.rewrite.prefix: a prefix must not contain "?": it is a plain path',
      '5:77: routes[1].path.rewrite.prefix: a prefix must not contain "#": it is a plain path',
      '6:77: routes[2].path.rewrite.prefix: a prefix must not contain "%": it is a plain path',
      '7:77: routes[3].path.rewrite.prefix: a prefix must not contain "/..": it is a plain path'
    ]
  },
  {
    name: 'settings of routes that http-proxy does not support',
    yaml: `
services: { a: { instances: [http://h] } }
routes:
  - { name: r0, service: a, match: { path: /a }, httpProxy: { rewritePrefix: /v2 } }
  - { name: r1, service: a, match: { path: /b }, via: http-proxy, edge: { websocket: { idleTimeout: 1m }, responsePath: raw } }
  - { name: r2, service: a, match: { path: /c }, via: http-proxy, path: { strip: /c } }
  - { name: r3, service: a, match: { path: "/d/:id" }, via: http-proxy, httpProxy: { rewritePrefix: "/v2/:ids" } }
  - { name: r5, service: a, match: { path: "/f/:id/:idx" }, via: http-proxy, httpProxy: { rewritePrefix: "/v2/:idx/:id/:id" } }
  - { name: r6, service: a, match: { path: /g }, via: http-proxy, httpProxy: { rewritePrefix: "/v2?x", module: ./none.ts } }
  - { name: r7, service: a, match: { path: /h }, via: http-proxi, httpProxy: { upstream: http://h } }
  - { name: r8, service: a, match: { path: /i }, via: http-proxy, path: { parameters: pass }, httpProxy: { rewritePrefix: v2 } }
  - { name: r9, service: a, match: { path: /j }, via: http-proxy, path: { parameters: pass }, httpProxy: { rewritePrefix: /v2 } }
`,
    faults: [
      '4:50: routes[0].httpProxy: no effect without via: http-proxy',
      '5:75: routes[1].edge.websocket: cannot be set with via: http-proxy, as http-proxy connects WebSockets without the mesh; serve them by a route without "via"',
      "5:107: routes[1].edge.responsePath: cannot be set with via: http-proxy, as http-proxy always sends through Fastify's reply",
      '6:75: routes[2].path.strip: cannot be set with via: http-proxy; set httpProxy.rewritePrefix instead',
      '7:101: routes[3].httpProxy.rewritePrefix: the path has no parameter ":ids"; did you mean "id"?',
      '8:106: routes[4].httpProxy.rewritePrefix: http-proxy confuses ":idx" with ":id"; rename one of the two',
      '8:106: routes[4].httpProxy.rewritePrefix: ":id" occurs twice, but http-proxy replaces only the first one',
      '9:95: routes[5].httpProxy.rewritePrefix: a prefix must not contain "?": it is a plain path with parameters such as ":id"',
      (dir) => `9:112: routes[5].httpProxy.module: no such file: ${dir}/none.ts`,
      '10:55: routes[6].via: expected one of http-proxy, bridge, found "http-proxi"; did you mean "http-proxy"?',
      '10:80: routes[6].httpProxy.upstream: unknown key',
      '11:123: routes[7].httpProxy.rewritePrefix: expected a path that starts with /, found "v2"',
      '12:108: routes[8].httpProxy.rewritePrefix: cannot be combined with path.parameters: pass: http-proxy does not find a prefix with path parameters in it'
    ]
  }
]
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: how a variable is written
