/**
 * Federation: one GraphQL schema from several services, by @mercuriusjs/gateway. Its calls go through the mesh. The services
 * speak Apollo Federation 1 and have their endpoint at `/graphql`; graphql-federation.yaml shows the entry under `plugins`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import gateway from '@mercuriusjs/gateway'

/** Headers of the client that the services get. */
const passedOn = ['authorization', 'traceparent', 'tracestate', 'baggage']

export default async function federation(fastify, { schemas }) {
  await fastify.register(gateway, {
    gateway: {
      services: Object.entries(schemas).map(([name, file]) => ({
        name,
        url: `http://${name}.mesh/graphql`,
        agent: fastify.mesh, // discovery, balancing, retries and breakers, as for any other call
        // From a file: while plugins load, no instances are known yet. So the gateway also starts while a service is down.
        schema: readFileSync(join(import.meta.dirname, file), 'utf8'),
        rewriteHeaders: (headers) =>
          Object.fromEntries(passedOn.flatMap((key) => (headers?.[key] === undefined ? [] : [[key, headers[key]]])))
      }))
    }
  })
}
