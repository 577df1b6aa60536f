// Routes to which the gateway responds itself: every fault as it is reported.
import { join } from 'node:path'
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

const folder = t.testdir({ 'large.txt': 'x'.repeat(2 ** 20 + 1), 'page.html': '<p>', typeless: 'x', folder: {} })

/** Returns the faults of a route with these keys, without positions unless `whole` is set. */
function faultsOf(keys: string, more = '', match = '{ path: /a }', whole = false): string[] {
  const text = `services: { s: { instances: ["http://h"] } }\n${more}\nroutes:\n  - { name: r, match: ${match}, ${keys} }\n`
  try {
    parseConfig(text, join(folder, 'gateway.yaml'), {})
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ line, column, path, message }) =>
      whole ? `${line}:${column}: ${path}: ${message}` : `${path.replace('routes[0].', '')}: ${message}`
    )
  }
}

t.test('sound routes', async (t) => {
  for (const keys of [
    'response: {}',
    'response: { body: "" }',
    'response: { json: null, status: 404 }',
    'response: { file: page.html }',
    'response: { status: 302, headers: { location: /x } }',
    'redirect: { to: / }',
    'redirect: { to: "https://[::1]:8443/é?a=%20#/b" }',
    'redirect: { to: "https://müller.example" }',
    'redirect: { scheme: https }',
    'redirect: {}, path: { strip: true }'
  ])
    t.strictSame(faultsOf(keys), [], keys)
})

t.test('positions', async (t) => {
  t.strictSame(faultsOf('service: s, response: { body: a, json: b }', '', '{ path: /a }', true), [
    '4:37: routes[0].service: a route has either response or a service',
    '4:70: routes[0].response.json: a response has either "body" or "json"'
  ])
})

t.test('keys that exclude each other, and keys without effect', async (t) => {
  const one = (keys: string, ...faults: string[]) => t.strictSame(faultsOf(keys), faults, keys)
  one('response: {}, redirect: { to: / }', 'redirect: a route has either response or redirect')
  one('redirect: { to: / }, split: [{ service: s, weight: 1 }]', 'split: a route has either redirect or a service')
  one(
    'response: {}, compose: { calls: { x: { service: s, path: / } } }',
    'compose: a route has either response or compose'
  )
  one('response: {}, mesh: { timeout: 1s }', 'mesh: no effect with response: the route calls no service')
  one('response: {}, via: bridge', 'via: no effect with response: the route calls no service')
  one(
    'response: {}, edge: { websocket: { idleTimeout: 1m } }',
    'edge.websocket: no effect with response: the response is not that of a service'
  )
  one('response: {}, path: { strip: true }', 'path.strip: no effect with response: the path goes to no service')
  one(
    'response: { contentType: a/b }',
    'response.contentType: no effect without a body: write "body", "json" or "file"'
  )
  one('response: { status: 204, body: a }', 'response.body: a response with status 204 has no body')
  one(
    'response: { status: 301 }',
    'response.status: a response with status 301 needs a target: write redirect: { to: … } instead'
  )
  one(
    'response: { headers: { Content-Type: a, content-length: "1", x-a: "a\\nb", x-b: "✓" } }',
    'response.headers.Content-Type: write contentType instead',
    'response.headers.content-length: the gateway sets this header itself',
    'response.headers.x-a: a header value cannot have this character',
    'response.headers.x-b: a header value cannot have this character'
  )
  one(
    'response: { body: a, contentType: "text/html\\r\\nx: y" }',
    'response.contentType: expected a media type such as text/html; charset=utf-8, found "text/html\\r\\nx: y"'
  )
  one(
    'response: { statusCode: 200, text: a }',
    'response.statusCode: unknown key; write status',
    'response.text: unknown key; write body'
  )
})

t.test('files', async (t) => {
  const one = (keys: string, fault: RegExp) => t.match(faultsOf(keys), [fault], keys)
  one('response: { file: pag.html }', /^response\.file: no such file: .*pag\.html; did you mean "page\.html"\?$/)
  one('response: { file: folder }', /^response\.file: no such file: /)
  one('response: { file: large.txt }', /^response\.file: cannot be read: it has 1048577 bytes; 1048576 are possible$/)
  one('response: { file: typeless }', /^response\.file: the name of the file does not tell its type: add contentType/)
})

t.test('targets of redirects', async (t) => {
  const one = (to: string, fault: string, match = '{ path: "/a/:id" }') =>
    t.strictSame(faultsOf(`redirect: { to: "${to}" }`, '', match), [`redirect.to: ${fault}`], to)
  const form = 'expected a path that starts with /, or a URL that starts with http:// or https://, found '
  one('a', `${form}"a"`)
  one('ftp://h/', `${form}"ftp://h/"`)
  one('javascript:alert(1)', `${form}"javascript:alert(1)"`)
  one('//evil.example', 'a path must not contain "//": it is a plain path')
  one('/a/../b', 'a path must not contain "/..": it is a plain path')
  one('/a\\\\b', 'a path must not contain "\\": it is a plain path')
  one('/a%2', 'a path must not contain "%": it is a plain path')
  for (const [authority, url] of [
    ['', 'https:///a'], [':id', 'https://:id/a'], ['u@h', 'https://u@h/'], ['*.h', 'https://*.h'], ['h:0', 'https://h:0'], ['h:65536', 'https://h:65536'], ['h h', 'https://h h/']
  ]) one(url!, `"${authority}" is not a host, or a host and a port; it has no parameters`) // biome-ignore format: a table
  one('https://h?a=b', 'write a path before the query')
  one('/a?b=é', 'query and fragment must not contain "é": percent-encode it')
  one('/b/:ix', '"/a/:id" has no parameter ":ix"; did you mean "id"?')
  one('/b/*', '"/a/:id" has no parameter "*"')
  one('/b', 'the route redirects to itself: clients would not get anywhere', '{ path: { exact: /b } }')
})

t.test('redirects', async (t) => {
  const one = (keys: string, ...faults: string[]) => t.strictSame(faultsOf(keys), faults, keys)
  one('redirect: {}', 'redirect: needs a target: write "to", or "scheme"')
  one('redirect: { to: /b, port: 1 }', 'redirect.port: no effect without "scheme"; write it in "to"')
  one('redirect: { to: "http://h", scheme: https }', 'redirect.scheme: "to" has a scheme already')
  one(
    'redirect: { to: /b }, path: { strip: /a }',
    'path.strip: no effect: redirect.to has a path; a URL without one keeps that of the request'
  )
  one('redirect: { to: /b, status: 304 }', 'redirect.status: expected one of 301, 302, 303, 307, 308, found 304')
  one(
    'redirect: { uri: /b, code: 301 }',
    'redirect.uri: unknown key; write the path or URL under "to"',
    'redirect.code: unknown key; write status: 301, 302, 303, 307 or 308'
  )
  const plain = faultsOf('redirect: { scheme: http }')
  t.strictSame(plain, [
    'redirect.scheme: requests to listener "default" use http already, so the redirect leads to itself'
  ])
})

t.test('a route without a target', async (t) => {
  t.strictSame(faultsOf('priority: 1', '', '{ path: /a }', true), [
    '4:5: routes[0]: missing key "service", "split", "compose", "response", "redirect", "files" or "portal"'
  ])
})

t.test('folders of files', async (t) => {
  const one = (keys: string, ...faults: (string | RegExp)[]) => t.match(faultsOf(keys), faults, keys)
  t.strictSame(faultsOf('files: { root: . }'), [])
  t.strictSame(faultsOf('files: { root: ., spa: true, index: page.html }'), [])
  one('files: { root: none }', /^files\.root: no such folder: /)
  one('files: { root: page.html }', /^files\.root: no such folder: /)
  one('files: { root: ., spa: true }', /^files\.spa: the folder has no "index\.html", which page loads get: /)
  one('files: { root: ., immutable: true }', 'files.immutable: no effect without "maxAge"')
  one('files: { root: ., index: ../a }', /^files\.index: expected the name of a file/)
  one('files: { root: ., tryFiles: a }', 'files.tryFiles: unknown key; write spa: true')
  one('files: { root: . }, service: s', 'service: a route has either files or a service')
})
