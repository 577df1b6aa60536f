/** Entry `jingwei/plugin`: functions and types for plugins and concerns of users. */
import type { TSchema } from 'typebox'
import type { UserEdgeConcern, UserMeshConcern } from './for-plugins.ts'
import type { UserDiscoverySource } from './mesh/discovery/user-source.ts'
import type { Authorizer } from './user-function.ts'

export type { Static } from 'typebox'
export { Mode } from '../config/schema/kit.ts'
export { default as Type } from '../config/schema/type.ts'
export type * from '../config/schema.ts'
export * from '../routes/bff/index.ts'
export type { Exchange } from './edge/bridge/exchange.ts'
export type { BodyLimit } from './edge/bridge/whole-bodies.ts'
export {
  askForWholeResponse,
  readRequestBody,
  readResponseBody,
  replaceRequestBody
} from './edge/bridge/whole-bodies.ts'
export type { EdgeDefinition } from './edge/concern.ts'
export type { RecordRefusal } from './edge/concern-refusals.ts'
export type { Consumer, GivenConsumer } from './edge/consumers/consumer.ts'
export type { RouteHooks } from './edge/route-hooks.ts'
export type { ShadowRefusal } from './edge/shadow.ts'
export type { UserEdgeConcern, UserMeshConcern } from './for-plugins.ts'
export { dropHeaders, headerPairs, mapLines, withHeaders } from './for-plugins.ts'
export { ForwardingHandler } from './mesh/core/handlers/forwarding-handler.ts'
export type { Layer, LayerContext } from './mesh/core/layer.ts'
export type { Repeating, Repeats } from './mesh/core/repeating/repeats.ts'
export { isReplayable } from './mesh/core/repeating/replay-body.ts'
export type {
  Dispatch,
  DispatchController,
  DispatchHandler,
  DispatchOptions,
  Interceptor
} from './mesh/core/types.ts'
export type { PublishedInstance, UserDiscoverySource, UserWatching } from './mesh/discovery/user-source.ts'
export type { UseOptions } from './mesh/interceptors.ts'
export type { ConfigurationMeter, Meter } from './meter.ts'
export type { CallOptions, JsonOptions, RequestMesh, StreamOptions } from './request-mesh.ts'
export type { Caller, CallRecord, CallRoute } from './seam.ts'
export type { Claims } from './stores.ts'
export type { Accepted, Authorization, Authorizer, AuthorizerContext, RefusedByFunction } from './user-function.ts'

/** Returns the definition of an edge concern. The types of its options in `check` and `plugin` are those of the schema. */
export function edgeConcern<const S extends TSchema>(definition: UserEdgeConcern<S>): UserEdgeConcern<S> {
  return definition
}

/** Returns the definition of a mesh concern. */
export function meshConcern(definition: UserMeshConcern): UserMeshConcern {
  return definition
}

/** Returns the definition of a source of instances. The types of its options in `create` are those of the schemas. */
export function discoverySource<const O extends TSchema, const S extends TSchema>(
  definition: UserDiscoverySource<O, S>
): UserDiscoverySource<O, S> {
  return definition
}

/** Returns a function that authenticates requests. The type of its options is that of `context.options`. */
export function defineAuthorizer<O = Readonly<Record<string, unknown>>>(authorize: Authorizer<O>): Authorizer<O> {
  return authorize
}
