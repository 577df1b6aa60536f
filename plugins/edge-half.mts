/**
 * The edge half of a gateway: its keys and its Fastify plugin. It is loaded by the first configuration without `sidecar`; for
 * the extension see `mesh-half.mts`.
 */
export { commands, concerns, default as edge, edgeKeys, edgePositions, edgeRouteConfig } from './edge/index.ts'
