/**
 * The edge of a sidecar: its keys and its Fastify plugin. It is loaded by the first configuration with `sidecar`; for the
 * extension see `mesh-half.mts`.
 */
export { concerns, default as edge, sidecarKeys } from './edge/sidecar.ts'
