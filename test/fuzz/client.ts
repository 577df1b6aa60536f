// The client of one fuzzed connection.
import { connect } from 'node:net'
import type { Outcome } from './check.ts'
import { readResponses } from './check.ts'
import { readConnection } from './requests.ts'
import type { Exchange, Run } from './service.ts'

/** Time without a byte in either direction after which a connection hangs. Every timeout of the gateway is shorter. */
const hangMs = 10_000
/** Longest time that a sequential client waits for a response before it sends the next request. */
const maxWaitMs = 400

export async function converse(port: number, run: Run, exchanges: Map<string, Exchange>): Promise<Outcome> {
  const { segments, splits, sequential, leave, resetAt } = run.case
  const all = segments.join('')
  let received = ''
  let ending: Outcome['ending'] | null = null
  let wake = () => {}
  const socket = connect({ port, host: '127.0.0.1' })
  socket.setNoDelay(true)
  const hang = setTimeout(() => {
    ending ??= 'hang'
    socket.destroy()
  }, hangMs)
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.on('error', () => {
    ending ??= 'reset'
  })
  socket.once('end', () => {
    ending ??= 'end'
  })
  socket.once('close', () => wake())
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
    hang.refresh()
    wake()
    if (leave === 'responded') closeIfComplete()
  })

  let sent = 0
  const closeIfComplete = () => {
    if (sent < all.length || run.reading.rest !== 'clean' || completeResponses(received) < run.reading.requests.length)
      return
    ending ??= 'left'
    socket.end()
  }
  const completeResponses = (text: string) =>
    readResponses(text, run, exchanges, false).finals.filter(({ complete }) => complete).length
  const over = () => ending !== null || socket.destroyed
  const send = (to: number) => {
    if (leave === 'reset' && to >= resetAt) {
      socket.write(all.slice(sent, resetAt), 'latin1')
      ending ??= 'left'
      // The delay lets some of the bytes arrive.
      setTimeout(() => socket.resetAndDestroy(), resetAt % 7)
    } else if (to > sent) {
      socket.write(all.slice(sent, to), 'latin1')
      sent = to
      hang.refresh()
    }
  }

  const stops = [...splits]
  if (sequential) {
    let at = 0
    for (const segment of segments) {
      at += segment.length
      stops.push({ at, pauseMs: -1 })
    }
    stops.sort((a, b) => a.at - b.at)
  }
  for (const { at, pauseMs } of stops) {
    if (over()) break
    send(at)
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
    if (pauseMs >= 0) continue
    const wanted = readConnection(all.slice(0, at)).requests.length
    const waitUntil = Date.now() + maxWaitMs
    while (!over() && Date.now() < waitUntil && completeResponses(received) < wanted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, maxWaitMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
  if (!over()) send(all.length)
  if (!over() && leave === 'responded') closeIfComplete()
  if (!over() && leave === 'end') {
    ending = 'left'
    socket.end()
  }
  await closed
  clearTimeout(hang)
  return { received, ending: ending ?? 'end' }
}
