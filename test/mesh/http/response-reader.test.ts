/** Bodies of every framing, with bytes split anywhere; each byte goes through a buffer that is reused at once. */
import t from 'tap'
import { Feed, Heard } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\n'
const inChunks = `${ok}Transfer-Encoding: chunked\r\n\r\n`

interface Sample {
  bytes: string
  method?: string
  /** Delimited by the end of the connection. */
  ends?: true
  body: string
  events?: string[]
}

const samples: Record<string, Sample> = {
  sized: { bytes: `${ok}Content-Length: 11\r\nA: b\r\n\r\nhello\r\n\r\nwo`, body: 'hello\r\n\r\nwo' },
  'sized 0': { bytes: `${ok}Content-Length: 0\r\n\r\n`, body: '' },
  chunked: {
    bytes: `${inChunks}5\r\nhello\r\n00A;x="y z";q\r\n\r\n0\r\n\r\n, w\r\n0\r\n\r\n`,
    body: 'hello\r\n0\r\n\r\n, w'
  },
  'chunked, of nothing': { bytes: `${inChunks}000\r\n\r\n`, body: '' },
  'chunked, with trailers': {
    bytes: `${inChunks}a\r\n0123456789\r\n0;e\r\nX-Sum: 7\r\nx-b: \r\n\r\n`,
    body: '0123456789'
  },
  'to the end': { bytes: `${ok}\r\nall of it\r\n\r\n`, body: 'all of it\r\n\r\n', ends: true },
  'to the end, of nothing': { bytes: 'HTTP/1.0 200 OK\r\n\r\n', body: '', ends: true },
  head: { bytes: `${ok}Content-Length: 5\r\n\r\n`, body: '', method: 'HEAD' },
  'head of chunks': { bytes: inChunks, body: '', method: 'HEAD' },
  204: { bytes: 'HTTP/1.1 204 No Content\r\n\r\n', body: '', events: ['start', '204', 'end'] },
  304: { bytes: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n', body: '', events: ['start', '304', 'end'] },
  'after interim responses': {
    bytes: `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 x\r\n\r\n${ok}Content-Length: 1\r\n\r\n!`,
    body: '!',
    events: ['start', '103', '102', '200', 'data', 'end']
  }
}

const eventsOf = ({ body, events }: Sample) => events ?? ['start', '200', ...(body === '' ? [] : ['data']), 'end']

for (const [name, sample] of Object.entries(samples)) {
  const { bytes, method, ends, body } = sample
  const read = (pieces: string[], heard = new Heard()) => {
    const feed = new Feed(heard, method)
    for (const piece of pieces) feed.give(piece)
    return ends ? feed.end() : feed
  }

  t.test(`${name}: the same result split anywhere, and byte by byte`, async (t) => {
    const cuts = Array.from({ length: bytes.length }, (_, at) => [bytes.slice(0, at), bytes.slice(at)])
    for (const pieces of [...cuts, bytes.split('')]) {
      const { heard, reader, fault } = read(pieces.filter((piece) => piece !== ''))
      const seen = { fault, events: heard.events, body: heard.body, idle: reader.idle, surplus: reader.surplus }
      const expected = { fault: null, events: eventsOf(sample), body, idle: true, surplus: null }
      if (JSON.stringify(seen) !== JSON.stringify(expected)) t.strictSame(seen, expected, JSON.stringify(pieces))
    }
    t.pass(`${cuts.length} cuts`)
  })

  t.test(`${name}: the same result with a pause at each event`, async (t) => {
    for (const pieces of [[bytes], bytes.split('')]) {
      let paused = 0
      const pause = (controller: { pause(): void }) => {
        controller.pause()
        paused++
      }
      const heard = new Heard({ head: pause, data: pause })
      const { reader, request } = read(pieces, heard)
      for (let i = 0; i < 100 && !request.over; i++) {
        t.ok(request.paused)
        request.resume()
      }
      t.strictSame([heard.events, heard.body], [eventsOf(sample), body])
      t.ok(reader.idle)
      t.ok(paused > 0)
    }
  })

  t.test(`${name}: the same result with a pause and an immediate resume`, async (t) => {
    const toggle = (controller: { pause(): void; resume(): void }) => {
      controller.pause()
      controller.resume()
    }
    for (const pieces of [[bytes], bytes.split('')]) {
      const { heard } = read(pieces, new Heard({ start: toggle, head: toggle, data: toggle, end: toggle }))
      t.strictSame([heard.events, heard.body], [eventsOf(sample), body])
    }
  })

  t.test(`${name}: bytes after the response are not part of it`, async (t) => {
    if (ends) return
    for (const more of ['x', '\r\n', `${ok}Content-Length: 5\r\n\r\nstray`]) {
      const { heard, reader } = read([bytes + more])
      t.strictSame([heard.events, heard.body], [eventsOf(sample), body])
      t.equal(reader.surplus?.toString(), more)
      const slow = read([bytes + more], new Heard({ data: (controller) => controller.pause() }))
      for (let i = 0; i < 10; i++) slow.request.resume()
      t.strictSame([slow.heard.events, slow.heard.body], [eventsOf(sample), body])
      t.equal(slow.reader.surplus?.toString(), more)
    }
  })

  t.test(`${name}: a truncated response is never complete`, async (t) => {
    const head = bytes.lastIndexOf('\r\n\r\n', ends ? bytes.indexOf('\r\n\r\n') : bytes.length) + 4
    for (let at = 0; at < (ends ? head : bytes.length); at++) {
      const { heard, fault } = new Feed(new Heard(), method).give(bytes.slice(0, at)).end()
      if (fault === null || heard.events.at(-1) !== 'error') t.fail(`whole after ${at} bytes: ${heard.events}`)
    }
    t.pass('all positions')
  })
}

t.test('trailers', async (t) => {
  const { heard, request } = new Feed().give(`${inChunks}0\r\nX-Sum: 7\r\n__proto__: 1\r\n\r\n`)
  t.equal(heard.trailers['x-sum'], '7')
  t.strictSame(request.rawTrailers, ['X-Sum', '7', '__proto__', '1'])
  t.strictSame({ ...new Feed().give(`${inChunks}0\r\n\r\n`).heard.trailers }, {})
})

t.test('invalid chunks', async (t) => {
  const ninesOf = (count: number) => 'f'.repeat(count)
  for (const body of [
    '\r\n',
    ';x\r\n',
    'g\r\n',
    ' 5\r\nhello\r\n',
    '5 \r\nhello\r\n',
    '+5\r\nhello\r\n',
    '-5\r\nhello\r\n',
    '0x5\r\nhello\r\n',
    '5\nhello\r\n',
    '5\rhello\r\n',
    '5\r\nhello!\r\n',
    '5\r\nhello\n',
    '5\r\nhello\rX',
    '5\r\nhello0\r\n\r\n',
    '5;a\nb\r\nhello\r\n',
    '5;a\0\r\nhello\r\n',
    '5;a\r\r\nhello\r\n',
    `${ninesOf(14)}\r\n`,
    `${ninesOf(17)}\r\n`,
    `1${'0'.repeat(16)}5\r\nhello\r\n`,
    `${'0'.repeat(2000)}5\r\nhello\r\n`,
    `5;${'x'.repeat(2000)}\r\nhello\r\n`,
    '0\r\nX : 1\r\n\r\n',
    '0\r\n X: 1\r\n\r\n',
    '0\r\nX: a\nb\r\n\r\n',
    '0\r\nHTTP/1.1 200 OK\r\n\r\n'
  ]) {
    for (const pieces of [[body], body.split('')]) {
      const feed = new Feed().give(inChunks)
      for (const piece of pieces) if (feed.fault === null) feed.give(piece)
      t.match(feed.fault, { name: 'HTTPParserError', code: /^HPE_/ }, JSON.stringify(body.slice(0, 40)))
      t.equal(feed.heard.events.at(-1), 'error')
    }
  }
})

t.test('chunk sizes with many leading zeros', async (t) => {
  const { heard } = new Feed().give(`${inChunks}${'0'.repeat(900)}5\r\nhello\r\n${'0'.repeat(900)}\r\n\r\n`)
  t.strictSame([heard.events, heard.body], [['start', '200', 'data', 'end'], 'hello'])
})

t.test('header and trailer sections that are too large', async (t) => {
  const filler = (size: number) => `A: ${'x'.repeat(size)}\r\n`
  for (const pieces of [1, 100]) {
    for (const [size, whole] of [
      [16_000, true],
      [17_000, false],
      [1_000_000, false]
    ] as const) {
      // biome-ignore format: a table
      for (const [lead, rest] of [
        [ok, 'Content-Length: 0\r\n\r\n'],
        [`${inChunks}0\r\n`, '\r\n']
      ] as const) {
        const bytes = lead + filler(size) + rest
        const feed = new Feed()
        const step = Math.ceil(bytes.length / pieces)
        for (let at = 0; at < bytes.length && feed.fault === null; at += step) feed.give(bytes.slice(at, at + step))
        t.equal(feed.fault?.code, whole ? undefined : 'UND_ERR_HEADERS_OVERFLOW', `${lead.length} ${size} ${pieces}`)
        t.equal(feed.heard.events.at(-1), whole ? 'end' : 'error')
      }
    }
  }
})

t.test('the header section is read although the request is paused; the body waits', async (t) => {
  const heard = new Heard({ start: (controller) => controller.pause() })
  const feed = new Feed(heard)
  feed.reader.read(Buffer.from(`${ok}Content-Length: 2\r\n\r\nhi`), 0, 40, true)
  t.strictSame(heard.events, ['start', '200'])
  t.ok(feed.reader.holds)
  feed.request.resume()
  t.strictSame([heard.events, heard.body], [['start', '200', 'data', 'end'], 'hi'])
})

t.test('a response resumed in a callback of another', async (t) => {
  const a = new Feed(new Heard({ head: (controller) => controller.pause() }))
  a.give(`${ok}Content-Length: 6\r\n\r\nab`).give('cdef')
  t.equal(a.heard.body, '')
  const b = new Feed(new Heard({ data: () => a.request.resume() }))
  b.give(`${inChunks}3\r\nxyz\r\n3\r\nuvw\r\n0\r\n\r\n`)
  t.strictSame([a.heard.events, a.heard.body], [['start', '200', 'data', 'end'], 'abcdef'])
  t.strictSame([b.heard.events, b.heard.body], [['start', '200', 'data', 'end'], 'xyzuvw'])
})

t.test('after an abort in the header section or the body there are no more callbacks', async (t) => {
  for (const hook of ['head', 'data'] as const) {
    const heard = new Heard({
      [hook]: (controller: { abort(reason: Error): void }) => controller.abort(new Error('no'))
    })
    const { fault } = new Feed(heard).give(`${inChunks}3\r\nxyz\r\n3\r\nuvw\r\n0\r\n\r\n`)
    t.strictSame(heard.events, ['start', '200', ...(hook === 'data' ? ['data'] : []), 'error'])
    t.equal(heard.error?.message, 'no')
    t.equal(fault, null)
  }
})

t.test('an exception of its handler fails the request', async (t) => {
  const broken = () => {
    throw new Error('broken')
  }
  for (const hook of ['head', 'data'] as const) {
    const { heard } = new Feed(new Heard({ [hook]: broken })).give(`${ok}Content-Length: 4\r\n\r\nab`).give('cd')
    t.equal(heard.events.at(-1), 'error')
    t.equal(heard.error?.message, 'broken')
    t.notOk(heard.events.includes('AFTER THE END'))
  }
})

t.test('an unrequested switch of protocols', async (t) => {
  const switching = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n'
  t.match(new Feed().give(switching), { fault: { code: 'HPE_UNEXPECTED_UPGRADE' } })
  const upgrade = new Feed(new Heard(), 'GET', { upgrade: 'websocket' }).give(`${switching}frame`)
  t.equal(upgrade.fault, null)
  t.equal(upgrade.request.switching?.status, 101)
  t.equal(upgrade.reader.surplus?.toString(), 'frame')
  const unnamed = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n'
  const vague = new Feed(new Heard(), 'GET', { upgrade: 'websocket' }).give(unnamed)
  t.match(vague.fault, { code: 'HPE_UNEXPECTED_UPGRADE' })
})

t.test('the keep-alive timeout of the service', async (t) => {
  for (const [hint, ms] of [
    ['timeout=5', 5000],
    ['Timeout=5, max=100', 5000],
    ['max=1,timeout=0', 0],
    ['max=5', null],
    ['xtimeout=5', null],
    ['timeout=x', null]
  ] as const) {
    const { reader } = new Feed().give(`${ok}Content-Length: 0\r\nKeep-Alive: ${hint}\r\n\r\n`)
    t.equal(reader.idleHintMs, ms, hint)
  }
  t.equal(new Feed().give(`${ok}Content-Length: 0\r\n\r\n`).reader.idleHintMs, null)
})

t.test('lines that end without a carriage return fail without waiting', async (t) => {
  for (const bytes of ['HTTP/1.1 200 OK\n\n', `${ok}A: b\n\n`, `${ok}A: b\r\n\n`, `${inChunks}0\r\nA: b\n\n`]) {
    for (const pieces of [[bytes], bytes.split('')]) {
      const feed = new Feed()
      for (const piece of pieces) if (feed.fault === null) feed.give(piece)
      t.match(feed.fault, { name: 'HTTPParserError', code: 'HPE_CR_EXPECTED' }, JSON.stringify(bytes))
    }
  }
})
