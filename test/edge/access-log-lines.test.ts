/** Lines of the access log in all formats, made of hostile values. */
import { Writable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { pino } from 'pino'
import t from 'tap'
import type { AccessFields } from '../../plugins/edge/access-log/fields.ts'
import { fieldNames, jsonLine, noFields } from '../../plugins/edge/access-log/fields.ts'
import { compileFilters } from '../../plugins/edge/access-log/filters.ts'
import { namedFormats } from '../../plugins/edge/access-log/options.ts'
import type { Entry } from '../../plugins/edge/access-log/template.ts'
import { compileMembers, compileText } from '../../plugins/edge/access-log/template.ts'
import { serializers } from '../../plugins/operations/logging.ts'

/** All fields, so that a new one has to be added here. */
const full: Required<AccessFields> = {
  requestId: 'r1',
  method: 'GET',
  path: '/a',
  route: 'all',
  status: 200,
  durationMs: 12.34,
  ttfbMs: 0.5,
  upstreamMs: 7,
  ip: '127.0.0.1',
  agent: 'curl/8',
  consumer: 'me',
  service: 'any',
  instance: 'http://127.0.0.1:1',
  attempts: 1,
  answeredBy: 'fallback',
  fallback: 'static',
  calls: [{ call: 'a', service: 'b', ms: 1.5 }],
  bytesSent: 5,
  error: 'JW_X',
  reason: 'x_y',
  cause: 'ECONNRESET',
  shadow: [{ concern: 'acl', error: 'JW_Y', reason: 'z' }],
  listener: 'public',
  direction: 'north-south',
  serverName: 'a.example',
  traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
  spanId: '00f067aa0ba902b7',
  requestHeaders: { 'x-a': 'b' },
  responseHeaders: { 'content-type': 'text/plain' }
}

/** Returns pino's line of the same fields, with the options of the gateway's log. */
function pinoLine(fields: object): string {
  let line = ''
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      line += chunk.toString()
      done()
    }
  })
  const options = {
    base: { name: 'jingwei' },
    serializers,
    formatters: { level: (label: string) => ({ level: label }) }
  }
  pino({ ...options, timestamp: () => ',"time":"T"' }, stream).info(fields, 'request')
  return line
}

const timeless = (line: string) => line.replace(/"time":"\d{4}-\d\d-\d\dT[\d:.]+Z"/, '"time":"T"')

/** Characters that end lines, columns and strings, control terminals, or are none. */
const hostile = [
  '\n', '\r', '\t', '\0', '\x1b[31m', '\x9b31m', '\x7f', '"', '\\', "'", ']', '|', ' ', ',', '\u2028', '\u202e', '\u200b',
  '\ud800', '\udc00', 'é', '健', '😀', '\xff', '","status":200,"x":"', '\\x22', '%0a'
] // biome-ignore format: a list

// A generator with a seed, so that a failure occurs again.
let seed = 7
const random = (below: number) => {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
  return seed % below
}
const hostileText = () => Array.from({ length: 1 + random(6) }, () => hostile[random(hostile.length)]).join('')

t.test('the JSON line has the bytes of pino’s line of the same fields', async (t) => {
  t.equal(timeless(jsonLine(full)), pinoLine(full))
  t.equal(timeless(jsonLine({ ...noFields, route: null, status: 404 })), pinoLine({ route: null, status: 404 }))
  t.equal(
    timeless(jsonLine({ ...full, instance: null, consumer: undefined })),
    pinoLine({ ...full, instance: null, consumer: undefined })
  )
  for (const name of fieldNames)
    t.equal(timeless(jsonLine({ ...noFields, [name]: full[name] })), pinoLine({ [name]: full[name] }), name)
  for (const name of fieldNames)
    t.equal(timeless(jsonLine({ ...full, [name]: undefined })), pinoLine({ ...full, [name]: undefined }), name)
  const refusal = {
    requestId: undefined,
    route: null,
    status: 400,
    ip: '::1',
    listener: 'a',
    answeredBy: 'gateway',
    error: 'malformed'
  }
  t.equal(timeless(jsonLine(refusal)), pinoLine(refusal))
  t.equal(timeless(jsonLine({})), pinoLine({}))
})

// biome-ignore lint/suspicious/noControlCharactersInRegex: none may occur
const safe = /^[^\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\ud800-\udfff]*\n$/u

t.test('no value breaks a JSON line or reaches a terminal', async (t) => {
  const texts = [...hostile, ...Array.from({ length: 2000 }, hostileText)]
  const isSafe = (line: string) => safe.test(line)
  const unsafe = texts.filter((text) => {
    const fields = {
      ...full,
      path: text,
      agent: text,
      consumer: text,
      requestHeaders: { 'x-a': text },
      shadow: [{ reason: text }]
    }
    const line = jsonLine(fields)
    const { level, time, name, msg, ...rest } = JSON.parse(line) as Record<string, unknown>
    const isEqual =
      JSON.stringify(rest) === JSON.stringify(fields) && msg === 'request' && level === 'info' && name === 'jingwei'
    return !isEqual || !isSafe(line) || typeof time !== 'string'
  })
  t.strictSame(unsafe, [])
})

/** An entry whose request has these values. */
function entryOf(text: string, fields: Partial<AccessFields> = {}): Entry {
  const headers = { 'user-agent': text, referer: text, 'x-a': text, authorization: text }
  const request = {
    method: 'GET',
    host: text,
    raw: { headers, url: '/a?token=secret&b=1', httpVersion: '1.1', rawHeaders: [] }
  }
  const reply = { getHeader: () => undefined }
  return {
    fields: { ...full, consumer: text, path: text, ...fields },
    request: request as unknown as FastifyRequest,
    reply: reply as unknown as FastifyReply,
    ofService: { 'x-b': text, 'set-cookie': text }
  }
}

t.test('no value forges a column of a text line', async (t) => {
  const combined = compileText(namedFormats.combined)
  const form =
    /^(\S+) - (\S+) \[(\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(\S+) (\S+) (\S+)" (\d+) (\d+) "((?:[^"\\]|\\x..)*)" "((?:[^"\\]|\\x..)*)"$/
  const own = compileText('{ip}|{consumer}|[{headers.x-a}] "{headers.x-a}"\t{status}\t{response.headers.x-b},{path}')
  const ownForm = /^127\.0\.0\.1\|([^|]+)\|\[([^\]]*)\] "((?:[^"\\]|\\x..)*)"\t200\t([^,]+),(\S+)$/
  const texts = [...hostile, ...Array.from({ length: 2000 }, hostileText)]
  const forged = texts.filter((text) => {
    const [a, b] = [combined(entryOf(text)), own(entryOf(text))]
    return !form.test(a) || !/^[ -~]*$/.test(a) || !ownForm.test(b) || !/^[\t -~]*$/.test(b)
  })
  t.strictSame(forged, [])
  t.equal(compileText('{consumer}')(entryOf('é "健"')), '\\xE9\\x20\\x22\\xE5\\x81\\xA5\\x22')
  t.equal(compileText('"{consumer}"')(entryOf('a b')), '"a b"')
  t.equal(compileText('{consumer}')(entryOf('x'.repeat(100_000))).length, 8192, 'a long value is cut')
})

t.test('templates show fields, times, masked secrets and missing values', async (t) => {
  const entry = entryOf('v')
  const text = (template: string) => compileText(template)(entry)
  t.equal(text('{{{status}}} {durationMs}ms {route}'), '{200} 12.34ms all')
  t.match(text('{time}'), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
  t.match(text('{time.unix}'), /^\d{10}\.?\d*$/)
  t.equal(text('{headers.authorization} {response.headers.set-cookie} {target}'), '*** *** /a?token=***&b=1')
  t.equal(
    text('{headers.none} {headers.none|nothing} {calls}'),
    '- nothing [{\\x22call\\x22:\\x22a\\x22,\\x22service\\x22:\\x22b\\x22,\\x22ms\\x22:1.5}]'
  )
  const refused: Entry = {
    fields: { ...noFields, status: 400, ip: '::1' },
    request: null,
    reply: null,
    ofService: null
  }
  t.match(compileText(namedFormats.common)(refused), /^::1 - - \[.*\] "- - -" 400 -$/)
  t.equal(compileText('{request.host} {headers.x-a} {response.headers.x-b} {target}')(refused), '- - - -')
  const members = compileMembers({
    status: '{status}',
    took: '{durationMs} ms',
    none: '{headers.none}',
    or: '{headers.none|x}'
  })
  t.equal(JSON.stringify(members(entry)), '{"status":200,"took":"12.34 ms","or":"x"}')
})

t.test('of cookies, and of parameters with names of secrets, templates show only that they are there', async (t) => {
  const entry = entryOf('v')
  const query = { password: 'hunter2', sig: 'hunter2', user_pwd: ['hunter2'], Token: 'hunter2', page: '3' }
  const params = { credential: 'hunter2', id: '4' }
  Object.assign(entry.request!, { query, params })
  entry.request!.raw.rawHeaders.push('Cookie', 'session=hunter2; theme=hunter2')
  entry.request!.raw.headers.cookie = 'session=hunter2; theme=hunter2'
  const secrets = [
    'query.password',
    'query.sig',
    'query.user_pwd',
    'query.Token',
    'params.credential',
    'cookies.session'
  ]
  const names = [...secrets, 'cookies.theme', 'query.page', 'params.id', 'query.pwd', 'cookies.none']
  const expected = ['***', '***', '***', '***', '***', '***', '***', '3', '4']
  t.equal(compileText(names.map((name) => `{${name}}`).join(' '))(entry), [...expected, '-', '-'].join(' '))
  const members = compileMembers(Object.fromEntries(names.map((name, i) => [`m${i}`, `{${name}}`])))
  t.strictSame(JSON.parse(JSON.stringify(Object.values(members(entry)).slice(0, expected.length))), expected)
})

t.test('one filter is enough to select a request', async (t) => {
  const filters = compileFilters({ statusCodes: ['5xx', '400-403', 418], minDuration: 1000, retryAttempts: true })!
  const fast = { durationMs: 1, attempts: 1 }
  t.strictSame([200, 399, 400, 403, 404, 418, 499, 500, 599].map((status) => filters({ ...fast, status })), [
    false, false, true, true, false, true, false, true, true
  ]) // biome-ignore format: statuses above
  t.ok(filters({ status: 200, durationMs: 1000, attempts: 1 }))
  t.ok(filters({ status: 200, durationMs: 1, attempts: 2 }))
  t.equal(compileFilters(undefined), null)
  const sampled = compileFilters({ statusCodes: ['5xx'], sample: 0.25 })!
  const chosen = Array.from({ length: 4000 }, () => sampled({ ...fast, status: 200 })).filter(Boolean).length
  t.ok(chosen > 800 && chosen < 1200, `${chosen} of 4000`)
  t.ok(Array.from({ length: 100 }, () => sampled({ ...fast, status: 503 })).every(Boolean))
})
