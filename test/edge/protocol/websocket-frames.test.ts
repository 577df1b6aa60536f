import { randomBytes } from 'node:crypto'
import t from 'tap'
import { closeFrame, FrameReader } from '../../../plugins/edge/protocol/websocket/frames.ts'
import { encode, opcodes } from '../../helpers/edge/websocket.ts'

const lengths = [0, 1, 125, 126, 127, 65535, 65536]
const all = lengths.flatMap((length) =>
  [false, true].map((masked) => encode(opcodes.binary, randomBytes(length), { masked }))
)

t.test('the end of a frame is found, for any split of its bytes', async (t) => {
  const stream = Buffer.concat(all)
  const ends = new Set<number>()
  let end = 0
  for (const { length } of all) {
    end += length
    ends.add(end)
  }
  for (const step of [1, 2, 7, 4096, stream.length]) {
    const reader = new FrameReader()
    const found: number[] = []
    for (let at = 0; at < stream.length; at += step) {
      const boundary = reader.read(stream.subarray(at, at + step))
      if (boundary >= 0) found.push(at + boundary)
      if (reader.atBoundary !== ends.has(Math.min(at + step, stream.length))) t.fail(`at ${at + step} by ${step}`)
    }
    t.ok(found.every((at) => ends.has(at)))
    t.equal(found.at(-1), stream.length)
    if (step === 1) t.strictSame(found, [...ends])
    t.notOk(reader.closed)
  }
})

t.test('a boundary within a chunk, and a chunk without one', async (t) => {
  const reader = new FrameReader()
  const frame = encode(opcodes.text, 'x'.repeat(300))
  t.equal(reader.read(Buffer.concat([frame, frame.subarray(0, 3)])), frame.length)
  t.notOk(reader.atBoundary)
  t.equal(reader.read(frame.subarray(3, 100)), -1)
  t.equal(reader.read(frame.subarray(100)), frame.length - 100)
  t.ok(reader.atBoundary)
})

t.test('a close frame is detected, and no payload is taken for one', async (t) => {
  const reader = new FrameReader()
  reader.read(encode(opcodes.binary, closeFrame.toClient))
  t.notOk(reader.closed)
  reader.read(closeFrame.toService)
  t.ok(reader.closed)
  t.ok(reader.atBoundary)
})
