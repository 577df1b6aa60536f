/** Names the version of the API that a route belongs to, and counts the requests of each version. */
import { orOff } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { edgeRouteOf } from '../attach.ts'
import { edgeConcern } from '../concern.ts'

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    apiVersion?: string | false
  }
}

export default edgeConcern({
  name: 'apiVersion',
  options: orOff(
    Type.String({
      pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$',
      expected: 'a text in quotes of letters, digits, dots, dashes and underscores, such as "2" or v2'
    }),
    { description: 'Version of the API that the route belongs to: a label of metrics, and a fact in portals.' }
  ),
  noShadow: 'it refuses no request',
  protects: false,
  aliases: { 'version|api_version|versioning': 'write edge.apiVersion' },
  apiFacts: (version) => ({ extensions: { 'x-api-version': version } }),
  explain: (version) => `counts the request for version ${version}`,
  async plugin(_fastify, { meter }) {
    const requests = meter.counter({
      name: 'jingwei_edge_version_requests_total',
      help: 'Requests to routes with edge.apiVersion, by version.',
      labelNames: ['version', 'route']
    })
    return (version, { config }) => {
      const counter = requests.labels(version, edgeRouteOf(config)!.name)
      return {
        onRequest(_request, _reply, done) {
          counter.inc()
          done()
        }
      }
    }
  }
})
