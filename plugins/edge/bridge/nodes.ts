/**
 * `edge.gatewayNodes`: the number of nodes of this gateway, by which limits are divided. For a service, it is the number of the
 * service's instances, which crosses the seam as the state of the service.
 */
import type { FastifyInstance } from 'fastify'
import type { Checked, Key } from '../../../config/concern.ts'
import { didYouMean } from '../../../config/nearest.ts'
import { Count, Either, Name } from '../../../config/schema/kit.ts'
import type { ServiceCalls } from '../../seam.ts'

type Nodes = number | string

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    gatewayNodes?: Nodes
  }
}

export const nodesKey: Key = {
  name: 'gatewayNodes',
  options: Either({ type: 'integer' }, Count(''), Name, {
    description:
      'Number of nodes of this gateway, by which rate limits are divided: an integer, or a service, whose instances in Consul or another registry are the nodes.'
  }),
  levels: ['gateway'],
  protects: false,
  check(value, at, { data, keys, report }: Checked) {
    const nodes = value as Nodes
    if (typeof nodes === 'number') return
    if (keys.withoutMesh) {
      report.fault(
        at,
        'the instances of a service are known to the mesh, and "mesh" is false; write the number of nodes'
      )
    } else if (report.usable('/services') && !Object.hasOwn(data.services, nodes))
      report.fault(at, `unknown service "${nodes}"${didYouMean(nodes, Object.keys(data.services))}`)
  }
}

/**
 * Returns a function that returns the number of nodes, 0 while it is not known. The last number stays while the registry lists no
 * instance at all: this node runs, so that the registry must be wrong.
 */
export function countNodes(fastify: FastifyInstance, nodes: Nodes): () => number {
  if (typeof nodes === 'number') return () => nodes
  let last = 0
  let isReported = false
  return () => {
    const { instances, source } = fastify.getDecorator<ServiceCalls>('mesh').service(nodes)
    last = instances.length || last
    if (last === 0 && source.confirmedAt !== null && !isReported) {
      isReported = true
      const advice = 'register each node of the gateway under this name'
      fastify.log.warn(
        { service: nodes },
        `edge.gatewayNodes: service ${nodes} has no instances, so limits with share: true are not divided; ${advice}`
      )
    }
    return last
  }
}
