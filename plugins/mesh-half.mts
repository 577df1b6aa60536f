/**
 * The mesh half for a gateway: its keys, its sources of instances and its Fastify plugin. It is loaded by the first configuration that has the mesh,
 * by `require`, since a configuration can be parsed synchronously.
 *
 * The extension is `.mts` because tools that patch `require`, such as those that measure coverage, compile `.ts` files
 * without removing the types.
 */
export { meshKeys } from './mesh/chain.ts'
export { sources } from './mesh/discovery/sources.ts'
export { default as mesh } from './mesh/index.ts'
