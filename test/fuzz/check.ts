// Checks of a client's responses: well-formed, its own, in order, complete or visibly aborted.
import type { Response } from './messages.ts'
import { Fault, headerValue, headerValues, readResponse } from './messages.ts'
import { tooLongMs } from './responses.ts'
import type { Exchange, Run } from './service.ts'
import { isMark, marks } from './service.ts'

export interface Outcome {
  /** All received bytes, one character a byte. */
  received: string
  /** The end of the connection: the gateway closed it (`end`, `reset`), the client closed it (`left`), or neither (`hang`). */
  ending: 'end' | 'reset' | 'left' | 'hang'
}

export interface Answers {
  finals: Response[]
  /** Reason why the bytes are no response. */
  fault: string | null
  /** Bytes of an incomplete header section. */
  partial: boolean
}

/** Reads a client's bytes. A response to HEAD has no body, so its mark or id is needed to find its request. */
export function readAnswers(received: string, run: Run, exchanges: Map<string, Exchange>, closed: boolean): Answers {
  const finals: Response[] = []
  const heads = run.reading.requests.some(({ method }) => method === 'HEAD')
  try {
    for (let at = 0; at < received.length; ) {
      let response = readResponse(received, at, 'HEAD', closed)
      if (response === null) return { finals, fault: null, partial: true }
      if (methodOf(response, received, run, exchanges, heads) !== 'HEAD')
        response = readResponse(received, at, 'GET', closed)!
      at = response.end
      if (response.status >= 200 || response.status === 101) finals.push(response)
      if (!response.complete) break
    }
    return { finals, fault: null, partial: false }
  } catch (error) {
    if (error instanceof Fault) return { finals, fault: error.message, partial: false }
    throw error
  }
}

function methodOf(
  head: Response,
  received: string,
  run: Run,
  exchanges: Map<string, Exchange>,
  heads: boolean
): string {
  const exchange = exchanges.get(headerValue(head, 'x-mark') ?? '')
  if (exchange !== undefined) return exchange.request.method
  if (!heads) return 'GET'
  const id = headerValue(head, 'x-request-id')
  // Its response had no mark.
  const came = run.exchanges.filter(({ request }) => id !== undefined && headerValue(request, 'x-request-id') === id)
  if (came.length === 1) return came[0]!.request.method
  const asked = run.reading.requests.filter((request) => headerValue(request, 'x-request-id') === id)
  if (asked.length === 1 && id !== undefined) return asked[0]!.method
  // The gateway's own responses are JSON; one without a body is the response to a HEAD.
  return /^(HTTP\/1\.1 |$)/.test(received.slice(head.end, head.end + 9)) ? 'HEAD' : 'GET'
}

const says = (response: Response, option: string) =>
  (headerValue(response, 'connection') ?? '').toLowerCase().split(/[ ,]+/).includes(option)

/** Returns the faults of a connection's outcome; as a rule, none. */
export function judge(run: Run, outcome: Outcome, exchanges: Map<string, Exchange>): string[] {
  const { received, ending } = outcome
  const { reading } = run
  const wrong: string[] = []
  if (ending === 'hang') wrong.push('no data is transferred, and the connection is not closed')
  for (const [mark, number, sum] of received.matchAll(marks)) {
    const owner = exchanges.get(mark)?.run
    if (isMark(number!, sum!) && owner !== run && !run.leftovers.has(mark))
      wrong.push(`${mark} is of ${owner === undefined ? 'an earlier' : 'another'} connection's response`)
  }
  const { finals, fault, partial } = readAnswers(received, run, exchanges, ending === 'end')
  if (fault !== null) wrong.push(`malformed: ${fault}`)
  const stayed = ending === 'end'
  /** A mutation takes the mark away, and may make any status a 500. */
  const isExpected500 = run.leftovers.size > 0 || run.exchanges.some(({ answer }) => answer?.status === 500)
  let last = -1
  for (const [number, response] of finals.entries()) {
    const mark = headerValue(response, 'x-mark')
    const exchange = mark === undefined ? undefined : exchanges.get(mark)
    if (number < finals.length - 1 && (says(response, 'close') || response.untilClose))
      wrong.push('more bytes after the last response')
    if (exchange === undefined) {
      if (response.status === 500 && !isExpected500) wrong.push('500')
      if (mark === undefined && stayed) wrong.push(...lost(response, run))
      continue
    }
    // A mutation may send the same request twice.
    if (exchange.index >= 0 && exchange.index < last) wrong.push(`responses out of order: ${mark}`)
    last = exchange.index
    wrong.push(...compare(response, exchange, stayed))
  }
  if (finals.length > reading.requests.length + { clean: 0, partial: 1, fault: 2, tunnel: Infinity }[reading.rest]) {
    if (reading.rest !== 'tunnel' && finals.at(-1)?.status !== 408)
      wrong.push(`${finals.length} responses to ${reading.requests.length} requests`)
  }
  const final = finals.at(-1)
  if (
    stayed &&
    !partial &&
    fault === null &&
    (final === undefined || (final.complete && !says(final, 'close') && final.status !== 101))
  ) {
    const open = reading.requests.length - (reading.cut ? 1 : 0) - finals.length
    const old = reading.requests[finals.length - 1]?.version === '1.0'
    // A response that fails while it is queued behind an earlier one is aborted before its first byte.
    const broken = run.exchanges.some(({ index, plan }) => index === finals.length && !plan.sound)
    if (open > 0 && !old && !broken && reading.rest !== 'tunnel') wrong.push(`${open} requests without a response`)
    else if (open === 0 && reading.rest !== 'clean' && reading.rest !== 'tunnel' && !old)
      wrong.push('closed without an error response')
  }
  return wrong
}

/** The close frame with 1001 that the gateway sends when it closes a tunnel. */
const goodbye = '\x88\x02\x03\xe9'
const withoutGoodbye = (bytes: string) => (bytes.endsWith(goodbye) ? bytes.slice(0, -goodbye.length) : bytes)

const isSlow = ({ plan }: Exchange) => plan.cuts.some(({ pauseMs }) => pauseMs >= tooLongMs)

/** A response of a service, and its outcome at the client. */
function compare(got: Response, { answer, plan, written, mark, ...exchange }: Exchange, stayed: boolean): string[] {
  if (answer === null) return []
  // undici treats a reset as the end of a body that ends with the connection, against RFC 9112, section 8.
  const reset = answer.untilClose && plan.after === 'reset'
  if (got.complete && !answer.complete && !reset) return [`${mark}: a truncated response arrived as a complete one`]
  if (got.status !== answer.status) return [`${mark}: ${got.status} instead of ${answer.status}`]
  if (got.status === 101)
    return answer.body.startsWith(withoutGoodbye(got.body)) || !plan.sound ? [] : [`${mark}: other bytes in the tunnel`]
  if (!answer.body.startsWith(got.body)) return [`${mark}: another body`]
  if (got.complete && got.body.length < answer.body.length && !reset)
    return [`${mark}: a part of the body arrived as the whole body`]
  const kept = ['x-latin', 'x-token-back', 'set-cookie', 'server', 'x-empty']
  for (const name of plan.sound ? kept : []) {
    const [given, passed] = [headerValues(answer, name), headerValues(got, name)]
    if (given.join('\n') !== passed.join('\n')) return [`${mark}: ${name} differs from the service's`]
  }
  const slow = isSlow({ answer, plan, written, mark, ...exchange })
  if (!got.complete && stayed && written && answer.complete && !slow && plan.sound)
    return [`${mark}: a complete response was aborted`]
  return []
}

/** The gateway's own response to a request that got a proper response of a service. */
function lost(response: Response, run: Run): string[] {
  if (response.status !== 502 && response.status !== 504) return []
  const id = headerValue(response, 'x-request-id')
  const asked = run.exchanges.filter(({ request }) => id !== undefined && headerValue(request, 'x-request-id') === id)
  const exchange = asked.at(-1)
  if (asked.length !== 1 || exchange === undefined || !exchange.plan.sound || !exchange.written) return []
  if (exchange.tainted && response.status === 502) return []
  return [`${exchange.mark}: ${response.status} instead of a valid response`]
}
