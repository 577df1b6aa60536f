import consul from './consul/index.ts'
import type { DiscoverySource } from './contract.ts'
import dns from './dns/index.ts'
import eureka from './eureka/index.ts'
import file from './file/index.ts'
import fixed from './static/index.ts'

/**
 * The sources of instances, in the order of the reference. To add a source, add its folder and a line here; to remove one,
 * delete both.
 */
export const sources: readonly DiscoverySource[] = [
  consul, // `discovery.consul`, `services.*.consul`
  fixed, // `services.*.instances`
  dns, // `services.*.dns`
  file, // `discovery.file`, `services.*.file`
  eureka // `discovery.eureka`, `services.*.eureka`
]
