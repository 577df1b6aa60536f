import type { MeshPolicy } from '../../config/schema.ts'
import type { Service } from './service.ts'
import type { Interceptor, Surroundings } from './types.ts'

/** Builds a concern's interceptor for one service and policy when a chain is composed; null where it is off. */
export type Layer = (service: Service, policy: MeshPolicy, around: Surroundings) => Interceptor | null
