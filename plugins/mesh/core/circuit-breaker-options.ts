/** `mesh.circuitBreaker`: options of the breaker, of the caps on calls in flight, of pools, and of retries. */
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import { Count, Duration, Mode, orOff, Share, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

const caps = {
  maxConnections: Count('Most connections in use at a time; more attempts are queued.', { default: 1024 }),
  maxPendingRequests: Count('Most attempts queued for a connection; more are refused at once.', {
    default: 1024,
    minimum: 0
  }),
  maxRequests: Type.Optional(Count('Most attempts in flight, with queued ones; more are refused at once.'))
}

const CircuitBreaker = Type.Object(
  {
    mode: Mode,
    ...caps,
    maxRetries: Type.Optional(Count('Most retries in flight at a time, besides the retry budget.')),
    perInstance: Type.Object(caps, { ...strict, default: {}, description: 'The same caps for each instance.' }),
    errorRatio: orOff(Share('Share of failed calls (5xx or no response, after retries) that opens the circuit.'), {
      default: '50%'
    }),
    slowRatio: orOff(Share('Share of slow calls that opens the circuit.'), { default: '100%' }),
    slowAfter: Duration("Time to the response's headers above which a call is slow.", { default: '5s' }),
    minRequests: Count('Fewest calls within the window for which ratios count.', { default: 20 }),
    window: Duration('Rolling window over which ratios are computed.', { default: '10s' }),
    openFor: Duration('Time for which the circuit stays open.', { default: '10s' }),
    rampFor: Duration('Half-open: time in which the admitted share of calls grows, linearly, to all.', {
      default: '10s'
    })
  },
  strict
)

export type CircuitBreakerOptions = Static<typeof CircuitBreaker>

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    circuitBreaker?: CircuitBreakerOptions | false
  }
}

export const circuitBreakerKey: Key = {
  name: 'circuitBreaker',
  aliases: { apiBreaker: 'write circuitBreaker under "mesh"' },
  options: orOff(CircuitBreaker, {
    description: 'Caps on connections and attempts in flight, and a circuit that opens on failed or slow calls.'
  }),
  levels: gatewayAndService
}
