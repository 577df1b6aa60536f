import t from 'tap'
import {
  isSecretField,
  isSecretKey,
  isSecretParameter,
  maskCredentials,
  maskUrl,
  maskUserinfo
} from '../../config/credentials.ts'
import { parseConfig } from '../../plugins/config.ts'

t.test('maskCredentials masks credentials in URLs', async (t) => {
  const cases = [
    ['http://user:pass@host/x', 'http://***@host/x'],
    ['redis://:p%40ss@h:6379', 'redis://***@h:6379'],
    ['"https://u:p@ss@h/?a=b","x@y"', '"https://***@h/?a=b","x@y"'],
    ['http://h/a@b http://h?x=//c@d', 'http://h/a@b http://h?x=//***@d'],
    ['https://h/k?token=1&b=2&access_token=3', 'https://h/k?token=***&b=2&access_token=***'],
    ['https://h/k?api-key=1#f', 'https://h/k?api-key=***#f'],
    ['https://h/k?monkey=1', 'https://h/k?monkey=1'],
    ['nothing // here', 'nothing // here']
  ] as const
  for (const [text, masked] of cases) t.equal(maskCredentials(text), masked)
})

t.test('maskUserinfo masks user and password, even of a malformed URL', async (t) => {
  for (const [url, masked] of [
    ['http://me:hunter2@h/x', 'http://***@h/x'],
    ['http://me:hun?t/er2#@h/x', 'http://***@h/x'],
    ['http://me@home:hunter2@h/x', 'http://***@h/x'],
    ['http://h/x', 'http://h/x'],
    ['me@h//x', 'me@h//x']
  ] as const) {
    t.equal(maskUserinfo(url), masked)
  }
})

t.test('maskUrl masks the whole query, too', async (t) => {
  for (const [url, masked] of [
    ['https://me:hunter2@h:8443/keys?code=hunter2', 'https://***@h:8443/keys?***'],
    ['https://h/keys?hunter2', 'https://h/keys?***'],
    ['https://h/keys?mail=a@hunter2', 'https://h/keys?***'],
    ['https://h/keys', 'https://h/keys'],
    ['http:// me:hun?ter2@h/keys?hunter2', 'http://***@h/keys?***'],
    ['http:// h/keys?hunter2', 'http:// h/keys?***']
  ] as const) {
    t.equal(maskUrl(url), masked)
  }
})

t.test('a parameter that is masked in a URL is a secret by its name', async (t) => {
  for (const name of ['password', 'old_password', 'pwd', 'sig', 'X-Amz-Signature', 'api_key', 'apikey', 'credential']) {
    t.equal(maskCredentials(`/?${name}=hunter2`), `/?${name}=***`)
    t.ok(isSecretParameter(name), name)
  }
  for (const name of ['page', 'sign', 'design', 'id']) t.notOk(isSecretParameter(name), name)
})

t.test('secret keys and fields are known by their names', async (t) => {
  const keys = { '/edge/jwt/secret': true, token: true, apiKey: true, '/listen/tls/key': false, '/edge/jwt': false }
  for (const [key, isSecret] of Object.entries(keys)) t.equal(isSecretKey(key), isSecret, key)
  const fields = { Authorization: true, cookie: true, 'X-Api-Key': true, 'x-csrf-token': true, 'user-agent': false }
  for (const [field, isSecret] of Object.entries(fields)) t.equal(isSecretField(field), isSecret, field)
  for (const field of ['Set-Cookie', 'x-session', 'X-Password', 'dpop', 'x-otp', 'x_auth'])
    t.ok(isSecretField(field), field)
  for (const field of ['Idempotency-Key', 'x-author', 'x-option', 'spin']) t.notOk(isSecretField(field), field)
})

t.test('the time of maskCredentials is linear in the length of the text', async (t) => {
  // A regular expression that backtracks would exceed the time limit of the test.
  for (const part of ['//', '//a', '//:', '?', '&a_', '?token', '//@@', 'a_-', '?a-', '&-_']) {
    t.equal(typeof maskCredentials(part.repeat(500_000)), 'string', part)
  }
})

t.test('faults of templates do not print the values of variables', async (t) => {
  const faultsOf = (route: string) => {
    const text = `services: { s: { instances: ["http://h"] } }\nroutes: [{ name: r, match: { path: /a, methods: [GET] }, ${route} }]`
    try {
      parseConfig(text, 'gateway.yaml', { TOKEN: 'hunter{2', OTHER: 'hun{ter2}' })
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  for (const name of ['TOKEN', 'OTHER']) {
    const value = `"Basic \${${name}}"`
    for (const route of [
      `service: s, edge: { headers: { request: { set: { authorization: ${value} } } } }`,
      `service: s, edge: { query: { set: { key: [a, ${value}] } } }`,
      `service: s, edge: { cookies: { request: { set: { key: ${value} } } } }`,
      `compose: { calls: { a: { service: s, path: /, headers: { authorization: ${value} } } } }`
    ]) {
      const message = faultsOf(route)
      t.match(message, `"Basic \${${name}}" is not a template`, route)
      t.notMatch(message, /hun|ter2/, route)
    }
  }
})
