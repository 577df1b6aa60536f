// Requests that come before the answer to an earlier one: the answers wait for their turn inside Node.
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { connect, startGateway, startRawService } from '../helpers/gateway.ts'

const slowMs = 150

/** Answers `/slow` late, and every other path at once with these bytes, a pause at each `|`. */
async function answering(t: Test, answer: string): Promise<number> {
  const service = await startRawService((socket: Socket) => {
    socket.on('data', async (chunk: Buffer) => {
      const slow = chunk.toString('latin1').startsWith('GET /slow ')
      for (const part of (slow ? '|HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow' : answer).split('|')) {
        if (part !== '') socket.write(part, 'latin1')
        await new Promise((resolve) => setTimeout(resolve, slow ? slowMs : slowMs / 5))
      }
      if (!slow && answer.endsWith('|')) socket.end()
    })
  })
  t.teardown(service.close)
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    mesh: { retry: false }
  })
  t.teardown(gateway.close)
  return gateway.port
}

const get = (path: string, ...lines: string[]) =>
  `GET ${path} HTTP/1.1\r\n${['Host: h', ...lines].map((line) => `${line}\r\n`).join('')}\r\n`
const first = /^HTTP\/1\.1 200 OK\r\n[\s\S]+?\r\n\r\nslow/

t.test('an answer that breaks before its turn breaks the connection in its turn', async (t) => {
  for (const answer of [
    'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart|',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n|'
  ]) {
    const port = await answering(t, answer)
    const { text } = await connect(port, get('/slow') + get('/fast')).closed
    t.match(text, first, 'what came before is whole')
    t.notMatch(text, /\r\n0\r\n/)
    t.notMatch(text, /part[\s\S]*HTTP/)
  }
})

t.test('1xx answers come before the head that they belong to', async (t) => {
  const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab|cd'
  const early = await answering(t, `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${ok}`)
  const hinted = await connect(early, get('/slow') + get('/fast', 'Connection: close')).closed
  t.match(hinted.text, /slowHTTP\/1\.1 102 [\s\S]+HTTP\/1\.1 103 [\s\S]+HTTP\/1\.1 200 OK\r\n[\s\S]+\r\n\r\nabcd$/)

  const port = await answering(t, ok)
  const lines = ['Expect: 100-continue', 'Content-Length: 1', 'Connection: close']
  const { text } = await connect(port, `${get('/slow')}${get('/fast', ...lines)}x`).closed
  t.match(text, /slow(HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 200 OK\r\n[\s\S]+\r\n\r\nabcd$/)
})

t.test('CONNECT is not answered in the place of an earlier request, nor after a last answer', async (t) => {
  const port = await answering(t, 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast')
  const tunnel = 'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n'
  t.notMatch((await connect(port, get('/slow') + tunnel).closed).text, /^HTTP\/1\.1 501 /)
  t.notMatch((await connect(port, get('/a/../b') + tunnel).closed).text, ' 501 ')
})
