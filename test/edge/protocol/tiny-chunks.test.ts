// Bodies that concerns read as a whole and that arrive byte by byte: they take little more memory than their bytes.
import { setImmediate as nextIteration } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { ChunkList } from '../../../plugins/chunk-list.ts'
import { connect, gatewayBefore, parse, startRawService } from '../../helpers/gateway.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const text = `{"a":"${'x'.repeat(40_000)}"}`
/** Each byte takes some 300 bytes if its chunk is kept. */
const mostMegabytes = 5
const validation = { body: { content: { 'application/json': { type: 'object' } } } }
const service = `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`

for (const [name, edge] of Object.entries({
  'edge.body': { body: { request: { add: { '/b': 1 } } } },
  'edge.validation': { validation },
  both: { validation, body: { request: { add: { '/b': 1 } } } }
})) {
  t.test(`${name}: a body that arrives byte by byte takes little memory`, async (t) => {
    let got = ''
    const { url, close } = await startRawService((socket) => {
      socket.on('data', (data) => {
        got += data.toString('latin1')
        if (got.endsWith('}')) socket.write(service)
      })
    })
    t.teardown(close)
    const { port } = await gatewayBefore(t, url, { edge })
    const fields = `Content-Type: application/json\r\nContent-Length: ${text.length}\r\nConnection: close`
    const client = connect(port, `POST / HTTP/1.1\r\nHost: h\r\n${fields}\r\n\r\n`)
    client.socket.setNoDelay(true)
    for (let turn = 0; turn < 100; turn++) await nextIteration()
    collectGarbage()
    const before = process.memoryUsage().heapUsed
    for (const character of text.slice(0, -1)) {
      client.socket.write(character)
      await nextIteration()
    }
    for (let turn = 0; turn < 100; turn++) await nextIteration()
    collectGarbage()
    const used = (process.memoryUsage().heapUsed - before) / 1e6
    t.ok(used < mostMegabytes, `${used} MB for ${text.length} bytes`)
    client.send(text.slice(-1))
    t.equal(parse((await client.closed).text).status, 200)
    t.strictSame(JSON.parse(parse(got).body), { ...JSON.parse(text), ...(name !== 'edge.validation' && { b: 1 }) })
  })
}

t.test('chunks of any size are joined without a change', async (t) => {
  const list = new ChunkList()
  const all: Buffer[] = []
  for (let index = 0; index < 5000; index++) {
    const chunk = Buffer.alloc(index % 977 === 0 ? 70_000 : index % 7, index)
    all.push(chunk)
    list.add(chunk)
  }
  const whole = Buffer.concat(all)
  t.equal(list.size, whole.length)
  t.ok(list.join().equals(whole))
  t.ok(Buffer.concat(list.chunks).equals(whole))
  t.ok(list.chunks.length < 300, `${list.chunks.length} chunks`)
  list.clear()
  t.equal(list.join().length, 0)
})
