/** Times of spans. */
import t from 'tap'
import { ServerSpan } from '../../plugins/edge/concerns/tracing/span.ts'
import type { FinishedSpan } from '../../plugins/spans.ts'
import { AttemptSpan, newTrace } from '../../plugins/spans.ts'

t.test('no span ends before it begins, also if the clock is set back meanwhile', async (t) => {
  const spans: FinishedSpan[] = []
  let time = 1000
  const recorder = { now: () => time, record: (span: FinishedSpan) => void spans.push(span) }
  const trace = newTrace(true)
  const sent = { method: 'GET', path: '/', origin: 'http://h', service: 's', resends: 0 }
  for (const endMs of [400, 1005]) {
    time = 1000
    const server = new ServerSpan(null, trace, null, () => true, time)
    const attempt = new AttemptSpan(recorder, trace, sent)
    time = endMs
    server.refuse(recorder, 400, 'malformed', undefined)
    attempt.end(200)
  }
  t.strictSame(spans.map(({ kind, startMs, endMs }) => [kind, startMs, endMs]), [
    ['server', 1000, 1000],
    ['client', 1000, 1000],
    ['server', 1000, 1005],
    ['client', 1000, 1005]
  ]) // biome-ignore format: short
})
