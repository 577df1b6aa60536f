// slow: takes about 16 s
import { randomInt } from 'node:crypto'
import t from 'tap'
import { judge } from './check.ts'
import { fuzz } from './fuzz.ts'
import { Fault, readRequest, readResponse } from './messages.ts'
import { Random } from './random.ts'
import { makeCase, readConnection } from './requests.ts'
import type { Exchange, Run } from './service.ts'

for (const [seed, limit] of [
  ['1', { connections: 600 }],
  ['2', { connections: 600 }],
  [`${randomInt(2 ** 31)}`, { seconds: 3 }]
] as const) {
  t.test(`seed ${seed}: no crash, hang, malformed response or response to another request`, async (t) => {
    const { violations, connections, forwarded } = await fuzz({ seed, ...limit })
    const found = violations.map(({ what, case: one, detail }) => {
      return `${what}\n  node test/fuzz/run.ts --seed ${seed}${one === null ? '' : ` --case ${one.number}`}\n${detail}`
    })
    t.strictSame(found, [])
    t.ok(forwarded > connections / 10, `${connections} connections, ${forwarded} requests forwarded`)
  })
}

t.test('a seed reproduces the random values', async (t) => {
  t.strictSame(makeCase('a', 7), makeCase('a', 7))
  t.notSame(makeCase('a', 7), makeCase('b', 7))
  t.notSame(new Random('a', 1).next(), new Random('a', 2).next())
})

t.test('the parsers refuse malformed and ambiguous messages', async (t) => {
  const ok = 'HTTP/1.1 200 OK\r\n'
  for (const bytes of [
    'HTTP/2 200 OK\r\n\r\n',
    `${ok}Content-Length: 1\r\nContent-Length: 1\r\n\r\na`,
    `${ok}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${ok}Content-Length: +1\r\n\r\na`,
    `${ok}X: a\nY: b\r\n\r\n`,
    `${ok}X : a\r\n\r\n`,
    `${ok}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n`,
    `${ok}Transfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n`,
    'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n'
  ]) {
    t.throws(() => readResponse(bytes, 0, 'GET', true), Fault, bytes)
  }
  t.match(readResponse(`${ok}Content-Length: 2\r\n\r\na`, 0, 'GET', true), { complete: false })
  t.match(readResponse(`${ok}\r\na`, 0, 'GET', true), { complete: true, body: 'a' })
  t.throws(() => readRequest('GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n', 0), Fault)
})

t.test('violations are reported', async (t) => {
  const sent = 'GET /ok/a HTTP/1.1\r\nHost: h\r\n\r\n'
  const run = (text: string): Run => ({
    case: makeCase('x', 0),
    reading: readConnection(text),
    exchanges: [],
    leftovers: new Set()
  })
  const verdict = (received: string, ending: 'end' | 'hang' = 'end', exchanges = new Map<string, Exchange>()) =>
    judge(run(sent), { received, ending }, exchanges).join()
  const headerSection = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n'
  t.equal(verdict(`${headerSection}\r\nok`), '')
  t.match(verdict(''), /1 requests without a response/)
  t.match(verdict('', 'hang'), /not closed/)
  t.match(
    verdict(`${headerSection}\r\nok${headerSection}\r\nok`),
    /more bytes after the last response.*2 responses to 1 requests/
  )
  t.match(verdict(`${headerSection.replace('200', '500')}\r\nok`), /500/)
  t.match(verdict(`${headerSection}X-Mark: m1c5c4d05a3\r\n\r\nok`), /m1c5c4d05a3 is of an earlier connection/)
  t.match(verdict(`${headerSection.replace('OK', 'O\nK')}\r\nok`), /malformed: status line/)
})
