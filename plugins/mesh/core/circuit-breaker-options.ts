/** `mesh.circuitBreaker`: options of the breaker, of the caps on calls in flight, of pools, and of retries. */
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import { Count, Duration, Mode, orOff, Share, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

const caps = {
  maxConnections: Count('Connections in use at a time; more attempts wait.', { default: 1024 }),
  maxPendingRequests: Count('Attempts that wait for a connection; more are refused at once.', {
    default: 1024,
    minimum: 0
  }),
  maxRequests: Type.Optional(Count('Attempts in flight, waiting ones included; more are refused at once.'))
}

export const CircuitBreaker = Type.Object(
  {
    mode: Mode,
    ...caps,
    maxRetries: Type.Optional(Count('Retries in flight at a time, besides the retry budget.')),
    perInstance: Type.Object(caps, { ...strict, default: {}, description: 'The same, of one instance.' }),
    errorRatio: orOff(Share('Share of failed calls (5xx, no answer, retries included) that opens the circuit.'), {
      default: '50%'
    }),
    slowRatio: orOff(Share('Share of slow calls that opens it.'), { default: '100%' }),
    slowAfter: Duration('A call is slow if its headers took longer.', { default: '5s' }),
    minRequests: Count('Calls within the window before ratios count.', { default: 20 }),
    window: Duration('Rolling window over which ratios are taken.', { default: '10s' }),
    openFor: Duration('How long it stays open.', { default: '10s' }),
    rampFor: Duration('Half-open: how long until all traffic is let in again, growing linearly.', { default: '10s' })
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
  options: orOff(CircuitBreaker, {
    description: 'Caps on what is in flight, and a breaker on the ratio of failed or slow calls.'
  }),
  levels: gatewayAndService
}
