import type { RoutePolicy, SplitShare } from '../../config/schema.ts'
import type { Explanation } from '../seam.ts'
import { hash32 } from './balancing/hash.ts'
import { balanceOptions } from './balancing/policy.ts'
import { fieldReader } from './core/request-fields.ts'
import type { Service } from './core/service.ts'
import type { DispatchOptions } from './core/types.ts'
import { matcher } from './split.ts'

type Target = Pick<SplitShare, 'service' | 'weight'> & { readonly subset?: string | undefined }

/** Methods of the mesh that `explain` uses. */
interface Services {
  layers(
    service: string,
    policy: RoutePolicy,
    route?: string,
    share?: number
  ): readonly { readonly name: string; readonly text?: string | null }[]
  service(name: string): Service
}

/** Explains which chain and instances a call under a route's policy would use; sends, draws and counts nothing. */
export function explain(mesh: Services, service: string, policy: RoutePolicy, opts: DispatchOptions): Explanation[] {
  const { split } = policy
  const targets: readonly Target[] = split ?? [{ service, subset: policy.subset, weight: 1 }]
  const matched = split?.find((share) => matcher(share.match)?.(opts))
  return targets
    .filter((share) => matched === undefined || share === matched)
    .map((share) => {
      const layers = mesh.layers(service, policy, opts.route?.name, targets.indexOf(share))
      const subset = share.subset ?? policy.subset
      return {
        service: share.service,
        subset: subset ?? null,
        share: split === undefined ? null : { weight: share.weight, matched: share === matched },
        chain: layers.map(({ name }) => name),
        decisions: layers.flatMap(({ name, text }) => (text ? [[name, text] as const] : [])),
        basePath: mesh.service(share.service).config.basePath ?? null,
        hashed: hashed(mesh, share.service, subset ?? '', opts),
        status: mesh.service(share.service).status()
      }
    })
}

function hashed(mesh: Services, name: string, subset: string, opts: DispatchOptions): string | null {
  const service = mesh.service(name)
  const { policy, hashOn } = balanceOptions(service.config.mesh.balance)
  if (hashOn === undefined || (policy !== 'ring-hash' && policy !== 'maglev')) return null
  const key = fieldReader(hashOn)(opts)
  return key === undefined ? null : (service.snapshot?.balancers[subset]?.pick(null, hash32(key))?.id ?? null)
}
