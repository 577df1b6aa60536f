/** Schema of the settings by which services reach a listener through the mesh. */
import { Names, strict } from './kit.ts'
import Type from './type.ts'

export const InboundConnect = Type.Object(
  {
    service: Type.String({
      minLength: 1,
      description:
        'Consul service as which callers reach the listener. Its leaf certificate is presented, and the rules of Consul Connect for it decide which services may call.'
    }),
    whenUnknown: Names(['deny', 'allow'], {
      default: 'deny',
      description:
        'Response to callers while Consul has not reported since the start which services may call: deny responds with 503. Once known, the last rules stay in force while Consul is unavailable.'
    })
  },
  {
    ...strict,
    description:
      'Accepts only services of the mesh (Consul Connect): mTLS with the leaf certificate of `service`, instead of `tls`. Needs Consul under `discovery`.'
  }
)

export const Direction = Names(['north-south', 'east-west'], {
  description:
    'Direction of the traffic: between external clients and services, or between services. `jingwei_edge_requests_total`, `jingwei_edge_request_duration_seconds`, access lines and the admin port show it, and rate limits count each direction on its own. Default: east-west with `connect`, else north-south.'
})
