/** The edge of a sidecar: rules of HTTP, the access log and metrics. It has none of the gateway's concerns. */
import fp from 'fastify-plugin'
import type { SidecarKeys } from '../../config/concern.ts'
import type { Config } from '../../config/schema.ts'
import { AccessLogSwitch } from './access-log/options.ts'
import accessLog from './access-log.ts'
import { composeEdge } from './compose.ts'
import type { EdgeConcern } from './concern.ts'
import { globalConcern } from './concern.ts'
import errors from './errors.ts'
import metrics from './metrics.ts'
import clientGone from './protocol/client-gone.ts'
import inbound, { servesCallers } from './protocol/inbound/index.ts'
import pipelining from './protocol/pipelining.ts'
import { idOf } from './protocol/request-id.ts'
import requestTarget from './protocol/request-target.ts'
import { asksForCertificates } from './protocol/tls/client-rules.ts'
import tls from './protocol/tls/index.ts'
import websocket from './protocol/websocket/index.ts'

/** Fixed options: the id of a request is read for the log, but neither sent to the service nor returned. */
const fixed = { requestId: { header: 'x-request-id', trustClient: true } }

const requestId = fp<Config>(async (fastify) => void fastify.setGenReqId(idOf(fixed.requestId)), {
  name: 'jingwei-ids'
})

/** In the order in which a request passes them. */
export const concerns: readonly EdgeConcern[] = [
  globalConcern('errors', errors), // first: every later failure gets a response from the error table
  globalConcern('request-id', requestId), // before any concern that logs
  globalConcern('client-gone', clientGone), // from here on the client may disconnect at any moment
  accessLog, // before the concerns that refuse requests
  globalConcern('metrics', metrics),
  globalConcern('pipelining', pipelining), // before any work for a request that has to wait
  globalConcern('mesh-caller', inbound, { isOn: servesCallers }), // before any other rule: a refused caller costs little
  globalConcern('request-target', requestTarget), // before the route's rules
  globalConcern('client-certificate', tls, { isOn: asksForCertificates }), // after request-target: its rule depends on a valid host
  websocket // last: the bridge follows
]

/** An access line for each call, at the service's host and again at its sidecar, is off unless asked for. */
const quiet = concerns
  .flatMap(({ keys }) => keys)
  .map((key) => (accessLog.keys.includes(key) ? { ...key, options: AccessLogSwitch, default: false } : key))

export const sidecarKeys: SidecarKeys = {
  keys: quiet,
  fixed,
  fixedFor: ({ requestId }) => ({ requestId: { ...requestId, trustClient: true } })
}

export default composeEdge('jingwei-sidecar', concerns)
