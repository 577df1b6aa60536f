// The client of one fuzzed connection.
import { connect } from 'node:net'
import type { Outcome } from './check.ts'
import { readAnswers } from './check.ts'
import { readConnection } from './requests.ts'
import type { Exchange, Run } from './service.ts'

/** Without a byte in either direction for so long, a connection hangs: every timeout of the gateway is shorter. */
const hangMs = 10_000
/** Longest time that a sequential client waits for a response before it sends on. */
const patienceMs = 400

export async function converse(port: number, run: Run, exchanges: Map<string, Exchange>): Promise<Outcome> {
  const { segments, cuts, sequential, leave, resetAt } = run.case
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
    if (leave === 'answered') goIfAnswered()
  })

  let sent = 0
  const goIfAnswered = () => {
    if (sent < all.length || run.reading.rest !== 'clean' || answers(received) < run.reading.requests.length) return
    ending ??= 'left'
    socket.end()
  }
  const answers = (text: string) =>
    readAnswers(text, run, exchanges, false).finals.filter(({ complete }) => complete).length
  const over = () => ending !== null || socket.destroyed
  const send = (to: number) => {
    if (leave === 'reset' && to >= resetAt) {
      socket.write(all.slice(sent, resetAt), 'latin1')
      ending ??= 'left'
      // So that something of it arrives.
      setTimeout(() => socket.resetAndDestroy(), resetAt % 7)
    } else if (to > sent) {
      socket.write(all.slice(sent, to), 'latin1')
      sent = to
      hang.refresh()
    }
  }

  const stops = [...cuts]
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
    const patience = Date.now() + patienceMs
    while (!over() && Date.now() < patience && answers(received) < wanted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, patienceMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
  if (!over()) send(all.length)
  if (!over() && leave === 'answered') goIfAnswered()
  if (!over() && leave === 'end') {
    ending = 'left'
    socket.end()
  }
  await closed
  clearTimeout(hang)
  return { received, ending: ending ?? 'end' }
}
