// Checks of the responses that a client received: well-formed, its own, in order, and complete or visibly aborted.
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

export interface ReceivedResponses {
  finals: Response[]
  /** Reason why the bytes are no response. */
  fault: string | null
  /** Bytes of an incomplete header section. */
  partial: boolean
}

/** Reads the bytes that a client received. A response to HEAD has no body, so its mark or id is needed to find its request. */
export function readResponses(
  received: string,
  run: Run,
  exchanges: Map<string, Exchange>,
  closed: boolean
): ReceivedResponses {
  const finals: Response[] = []
  const hasHead = run.reading.requests.some(({ method }) => method === 'HEAD')
  try {
    for (let at = 0; at < received.length; ) {
      let response = readResponse(received, at, 'HEAD', closed)
      if (response === null) return { finals, fault: null, partial: true }
      if (methodOf(response, received, run, exchanges, hasHead) !== 'HEAD')
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
  response: Response,
  received: string,
  run: Run,
  exchanges: Map<string, Exchange>,
  hasHead: boolean
): string {
  const exchange = exchanges.get(headerValue(response, 'x-mark') ?? '')
  if (exchange !== undefined) return exchange.request.method
  if (!hasHead) return 'GET'
  const id = headerValue(response, 'x-request-id')
  // The request of a response without a mark is found by its id.
  const arrived = run.exchanges.filter(({ request }) => id !== undefined && headerValue(request, 'x-request-id') === id)
  if (arrived.length === 1) return arrived[0]!.request.method
  const sent = run.reading.requests.filter((request) => headerValue(request, 'x-request-id') === id)
  if (sent.length === 1 && id !== undefined) return sent[0]!.method
  // The gateway's own responses are JSON; one without a body is the response to a HEAD.
  return /^(HTTP\/1\.1 |$)/.test(received.slice(response.end, response.end + 9)) ? 'HEAD' : 'GET'
}

const hasConnectionOption = (response: Response, option: string) =>
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
  const { finals, fault, partial } = readResponses(received, run, exchanges, ending === 'end')
  if (fault !== null) wrong.push(`malformed: ${fault}`)
  const stayed = ending === 'end'
  /** True if the service may have sent a 500. A mutation can remove the mark and change any status to 500. */
  const isExpected500 = run.leftovers.size > 0 || run.exchanges.some(({ expected }) => expected?.status === 500)
  let last = -1
  for (const [number, response] of finals.entries()) {
    const mark = headerValue(response, 'x-mark')
    const exchange = mark === undefined ? undefined : exchanges.get(mark)
    if (number < finals.length - 1 && (hasConnectionOption(response, 'close') || response.untilClose))
      wrong.push('more bytes after the last response')
    if (exchange === undefined) {
      if (response.status === 500 && !isExpected500) wrong.push('500')
      if (mark === undefined && stayed) wrong.push(...replacedResponses(response, run))
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
    (final === undefined || (final.complete && !hasConnectionOption(final, 'close') && final.status !== 101))
  ) {
    const open = reading.requests.length - (reading.lastIncomplete ? 1 : 0) - finals.length
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
const closeFrame = '\x88\x02\x03\xe9'
const withoutCloseFrame = (bytes: string) => (bytes.endsWith(closeFrame) ? bytes.slice(0, -closeFrame.length) : bytes)

const isSlow = ({ plan }: Exchange) => plan.splits.some(({ pauseMs }) => pauseMs >= tooLongMs)

/** Compares a response that the client received with that of the service. */
function compare(got: Response, { expected, plan, written, mark, ...exchange }: Exchange, stayed: boolean): string[] {
  if (expected === null) return []
  // undici treats a reset as the end of a body that ends with the connection, against RFC 9112, section 8.
  const reset = expected.untilClose && plan.after === 'reset'
  if (got.complete && !expected.complete && !reset) return [`${mark}: a truncated response arrived as a complete one`]
  if (got.status !== expected.status) return [`${mark}: ${got.status} instead of ${expected.status}`]
  if (got.status === 101)
    return expected.body.startsWith(withoutCloseFrame(got.body)) || !plan.sound
      ? []
      : [`${mark}: other bytes in the tunnel`]
  if (!expected.body.startsWith(got.body)) return [`${mark}: another body`]
  if (got.complete && got.body.length < expected.body.length && !reset)
    return [`${mark}: a part of the body arrived as the whole body`]
  const kept = ['x-latin', 'x-token-back', 'set-cookie', 'server', 'x-empty']
  for (const name of plan.sound ? kept : []) {
    const [given, passed] = [headerValues(expected, name), headerValues(got, name)]
    if (given.join('\n') !== passed.join('\n')) return [`${mark}: ${name} differs from the service's`]
  }
  const slow = isSlow({ expected, plan, written, mark, ...exchange })
  if (!got.complete && stayed && written && expected.complete && !slow && plan.sound)
    return [`${mark}: a complete response was aborted`]
  return []
}

/** Reports a response of the gateway to a request for which a service sent a valid response. */
function replacedResponses(response: Response, run: Run): string[] {
  if (response.status !== 502 && response.status !== 504) return []
  const id = headerValue(response, 'x-request-id')
  const arrived = run.exchanges.filter(({ request }) => id !== undefined && headerValue(request, 'x-request-id') === id)
  const exchange = arrived.at(-1)
  if (arrived.length !== 1 || exchange === undefined || !exchange.plan.sound || !exchange.written) return []
  if (exchange.tainted && response.status === 502) return []
  return [`${exchange.mark}: ${response.status} instead of a valid response`]
}
