import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import type { Clock } from '../clock.ts'
import { CLOCK, systemClock } from '../clock.ts'
import keepStores from '../keep-stores.ts'
import { Forwarder } from './forwarder.ts'

/**
 * Registers the calls of a configuration with `mesh: false` as `fastify.mesh`, in place of the mesh. The edge calls both by
 * undici's interface `Dispatcher`; operations use the methods that both have.
 */
export default fp<Config>(
  async (fastify, { services }) => {
    await fastify.register(keepStores, {})
    const { now } = fastify.hasDecorator(CLOCK) ? fastify.getDecorator<Clock>(CLOCK) : systemClock
    const forwarder = new Forwarder(services, {
      claims: fastify.stores,
      now,
      spanRecorder: fastify.hasDecorator('spanRecorder') ? fastify.spanRecorder : null,
      meter: fastify.hasDecorator('meter') ? fastify.meter.lasting : null,
      owners: fastify.hasDecorator('faultOwners') ? fastify.faultOwners : null
    })
    fastify.decorate('mesh', forwarder)
    fastify.addHook('onClose', () => forwarder.shutdown())
  },
  { name: 'jingwei-forward-calls', fastify: '5.x' }
)
