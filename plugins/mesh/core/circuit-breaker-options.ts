/** `mesh.circuitBreaker`: options of the breaker, of the caps on calls in flight, of pools, and of retries. */
import type { Static } from 'typebox'
import type { Checked, Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Count, Duration, DurationOrZero, Mode, orOff, Share, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { checkStatuses, Statuses } from './statuses.ts'

const caps = {
  maxConnections: Count('Most connections in use at a time; more attempts are queued.', { default: 1024 }),
  maxPendingRequests: Count('Most attempts queued for a connection; more are refused at once.', {
    default: 1024,
    minimum: 0
  }),
  maxRequests: Type.Optional(Count('Most attempts in flight, with queued ones; more are refused at once.'))
}

const breaker = {
  consecutiveFailures: Type.Optional(
    Count('Failed calls in a row, in any time, that open the circuit. Unset: only ratios open it.')
  ),
  errorRatio: orOff(Share('Share of failed calls that opens the circuit.'), { default: '50%' }),
  failureStatuses: Statuses(
    'Statuses of failed calls, such as 429 or 500-599. A call without a response has failed, too. What counts is the result after retries.',
    ['500-599']
  ),
  slowRatio: orOff(Share('Share of slow calls that opens the circuit.'), { default: '100%' }),
  slowAfter: Duration("Time to the response's headers above which a call is slow.", { default: '5s' }),
  minRequests: Count('Fewest calls within the window for which ratios count.', { default: 20 }),
  window: Duration('Rolling window over which ratios are computed.', { default: '10s' }),
  openFor: Duration('Time for which the circuit stays open.', { default: '10s' }),
  maxOpenFor: Type.Optional(
    Duration('`openFor` doubles each time that the circuit opens again before it has closed, up to this time.')
  ),
  consecutiveSuccesses: Count(
    'Half-open: calls, one at a time, that have to succeed in a row before `rampFor` begins.',
    {
      default: 1
    }
  ),
  rampFor: DurationOrZero(
    'Half-open: time in which the admitted share of calls grows, linearly, to all. 0: the circuit closes at once.',
    { default: '10s' }
  )
}

const CircuitBreaker = Type.Object(
  {
    mode: Mode,
    ...caps,
    maxRetries: Type.Optional(Count('Most retries in flight at a time, besides the retry budget.')),
    perInstance: Type.Object(caps, { ...strict, default: {}, description: 'The same caps for each instance.' }),
    ...breaker
  },
  strict
)

/** The breaker of a route. Connections, and so the caps on them, belong to services. */
const RouteBreaker = Type.Object({ mode: Mode, ...breaker }, strict)

export type CircuitBreakerOptions = Static<typeof CircuitBreaker>
export type BreakerOptions = Static<typeof RouteBreaker>

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    /** On routes without caps. */
    circuitBreaker?: CircuitBreakerOptions | false
  }
}

const capsOfServices = 'caps are those of a service: write it under services.NAME.mesh.circuitBreaker'

export const circuitBreakerKey: Key = {
  name: 'circuitBreaker',
  aliases: { apiBreaker: 'write circuitBreaker under "mesh"' },
  innerAliases: {
    'maxConnections|maxPendingRequests|maxRequests|maxRetries|perInstance': capsOfServices,
    'failures|maxErrors|consecutiveErrors|consecutive5xx|unhealthy|failureThreshold': 'write consecutiveFailures',
    'httpStatuses|statuses|statusCodes|responseStatuses': 'write failureStatuses',
    'successes|healthy|successThreshold': 'write consecutiveSuccesses',
    maxBreakerSec: 'write maxOpenFor',
    'breakSec|timeout|fallbackDuration|waitDurationInOpenState|resetTimeout|sleepWindow': 'write openFor',
    'recoveryDuration|permittedNumberOfCallsInHalfOpenState': 'write rampFor',
    'failureRateThreshold|errorThresholdPercentage': 'write errorRatio',
    slowCallRateThreshold: 'write slowRatio',
    slowCallDurationThreshold: 'write slowAfter',
    'minimumNumberOfCalls|requestVolumeThreshold': 'write minRequests',
    'interval|slidingWindowSize': 'write window',
    'fallback|fallbackUri|breakResponseCode|breakResponseBody|responseCode': 'write fallback under "mesh"'
  },
  options: orOff(CircuitBreaker, {
    description: 'Caps on connections and attempts in flight, and a circuit that opens on failed or slow calls.'
  }),
  routeOptions: orOff(RouteBreaker, {
    description: 'A circuit of the route alone, in place of that of its service. The caps of the service apply.'
  }),
  levels: everyLevel,
  check(options: CircuitBreakerOptions, at, checked) {
    if (checked.report.sound(at)) checkBreaker(options, at, checked)
  }
}

/** Returns whether anything opens the circuit. */
export const canOpen = ({ consecutiveFailures, errorRatio, slowRatio }: BreakerOptions): boolean =>
  consecutiveFailures !== undefined || errorRatio !== false || slowRatio !== false

function checkBreaker(options: CircuitBreakerOptions, at: string, { report }: Checked): void {
  const { failureStatuses, openFor, maxOpenFor } = options
  checkStatuses(failureStatuses, `${at}/failureStatuses`, report)
  if (maxOpenFor !== undefined && maxOpenFor < openFor) {
    report.fault(`${at}/maxOpenFor`, `must not be shorter than openFor, ${openFor / 1000}s`)
  }
  if (at.startsWith('/routes/') && !canOpen(options)) {
    report.fault(at, 'nothing opens this circuit: set consecutiveFailures, errorRatio or slowRatio, or write false')
  }
}
