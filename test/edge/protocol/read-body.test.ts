/** Reading of whole bodies whose end has come before the reader. */
import { PassThrough, Readable } from 'node:stream'
import t from 'tap'
import { readBody } from '../../../plugins/edge/protocol/read-body.ts'

const read = (body: Readable) =>
  new Promise<Buffer | Error | null>((resolve) => readBody(body, 100, (error, bytes) => resolve(error ?? bytes)))

t.test('a stream that has failed before gives its error', async (t) => {
  const body = new PassThrough()
  body.on('error', () => {})
  body.destroy(new Error('malformed'))
  await new Promise((resolve) => body.once('close', resolve))
  t.match(await read(body), { message: 'malformed' })
})

t.test('a stream that was closed before is cut off', async (t) => {
  const body = new PassThrough()
  body.destroy()
  await new Promise((resolve) => body.once('close', resolve))
  t.match(await read(body), { message: /disconnected/ })
})

t.test('other streams are read', async (t) => {
  t.strictSame(await read(Readable.from([Buffer.from('a'), 'b'])), Buffer.from('ab'))
})
