// Settings of concerns that transform requests and responses which cannot do what they say: the faults and warnings.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'

const folder = t.testdir({ folder: {} })
execFileSync('mkfifo', [join(folder, 'pipe')])

/** Returns faults, and warnings, of a route with these concerns. */
function toldOf(edge: string): string[] {
  const text = `services: { s: { instances: ["http://h"] } }\nroutes: [{ name: r, match: { path: /a }, service: s, edge: { ${edge} } }]\n`
  const told: string[] = []
  try {
    parseConfig(text, join(folder, 'gateway.yaml'), {}, ({ path, message }) => void told.push(`${path}: ${message}`))
  } catch (error) {
    const { faults = [] } = error as { faults?: readonly { path: string; message: string }[] }
    if (faults.length === 0) throw error
    told.push(...faults.map(({ path, message }) => `${path}: ${message}`))
  }
  return told.map((each) => each.replace('routes[0].edge.', ''))
}

const cases: [edge: string, ...told: (string | RegExp)[]][] = [
  ['host: "a.example:65535"'],
  ['host: "a.example:65536"', /^host: expected one of preserve, upstream or a host/],
  ['host: "orders:0"', /^host: expected one of/],
  ['errorPages: { pages: { 404: { html: { file: folder } } } }', 'errorPages.pages.404.html.file: it is not a file'],
  ['errorPages: { pages: { 404: { html: { file: pipe } } } }', 'errorPages.pages.404.html.file: it is not a file'],
  ['errorPages: { pages: { 404: { html: { file: /dev/zero } } } }', 'errorPages.pages.404.html.file: it is not a file'],
  ['errorPages: { pages: { 200: { html: x } } }', /pages\.200: expected a status of 400 to 599, 4xx, 5xx, a code/],
  ['maintenance: { allow: { headers: { "x a": x } } }', /headers\["x a"\]: expected a header name as its key/],
  ['headers: { request: { rename: { x-a: X-A } } }', /rename\.x-a: changes nothing: both names are the same/],
  ['query: { rename: { a: a } }', 'query.rename.a: changes nothing: both names are the same'],
  ['query: { remove: ["a%20b"] }', 'query.remove[0]: names are compared decoded: write "a b"'],
  ['query: { only: ["100%"] }'],
  ['cookies: { request: { rename: { a: a } } }', /rename\.a: changes nothing: both names are the same/],
  ['cookies: { request: { rename: { "a b": c } } }', /rename\["a b"\]: "a b" is not the name of a cookie/],
  [
    'cors: { origin: "*" }, headers: { response: { remove: [access-control-allow-origin] } }',
    /remove\[0\]: "access-control-allow-origin" is set by edge\.cors; change it there/
  ],
  [
    'deprecation: { at: 2020-01-01 }, headers: { response: { rename: { deprecation: x-old } } }',
    /"deprecation" is set by edge\.deprecation; change it there/
  ],
  ['cors: { origin: "*" }, headers: { response: { remove: [vary] } }'],
  ['cors: { origin: "https://a.example" }, headers: { response: { remove: [vary] } }', /without "Vary: Origin"/],
  ['cors: { origin: "https://a.example" }, headers: { response: { append: { vary: accept } } }'],
  ['cors: { origin: "/^.*$/", credentials: true }', /^cors\.credentials: any page on the web can act/],
  ['cors: { origin: "/^https:..[a-z]+.example$/", credentials: true }'],
  ['cors: { origin: "https://a.example", exposedHeaders: [a, "*"] }'],
  [
    'cors: { origin: "https://a.example", credentials: true, exposedHeaders: [a, "*"] }',
    /^cors\.exposedHeaders\[1\]: with credentials, browsers take "\*" for a name/
  ]
]

t.test('each setting without the effect that it names is told', async (t) => {
  for (const [edge, ...told] of cases) t.match(toldOf(edge), told, edge)
  for (const [edge, ...told] of cases) t.equal(toldOf(edge).length, told.length, edge)
})
