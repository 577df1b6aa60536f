import type { SeamReason } from '../../seam.ts'
import type { MeshConcern } from '../concern.ts'
import type { Call } from '../core/call.ts'
import { MeshError } from '../core/errors.ts'
import { EndingHandler } from '../core/handlers/ending-handler.ts'
import type { Layer } from '../core/layer.ts'
import { overflowCounter } from '../core/metrics.ts'
import type { Service } from '../core/service.ts'
import { isInSubset } from '../core/subset.ts'
import type { Attempt, DispatchHandler, Endpoint, Instance } from '../core/types.ts'

/** Chooses the instance of each attempt from the newest snapshot and counts the attempt as its load. */
export const select: Layer = (service, policy, deps) => {
  const { subset = '' } = policy
  const overflow = overflowCounter(deps.meter, service.name, 'instance')
  return (dispatch) => (opts, handler) => {
    const call = opts.call!
    const balancer = service.snapshot?.balancers[subset]
    // If every instance was tried, try one of them again.
    let instance: Instance | null | undefined =
      balancer?.pick(call.tried, call.hash) ?? balancer?.pick(null, call.hash) ?? null
    if (instance?.endpoint.isFull()) instance = balancer!.pick(fullOrTried(service, call.tried), call.hash) ?? undefined
    if (!instance) {
      const areFull = instance === undefined
      if (areFull) overflow()
      const reason = areFull ? 'overload_instances' : whyNone(service, subset)
      const code = areFull ? 'JW_OVERLOADED' : 'JW_NO_INSTANCE'
      handler.onResponseError?.(call, new MeshError(code, service.name, undefined, reason))
      return true
    }
    call.attempt(instance)
    const { endpoint } = instance
    endpoint.onAttempt?.()
    const load = new LoadHandler(handler, endpoint, call, deps.now)
    try {
      return dispatch({ ...opts, origin: instance.origin, instance, attempt: load }, load)
    } catch (error) {
      // An interceptor threw, which ends this attempt.
      load.onResponseError(call, error as Error)
      return true
    }
  }
}

/** Returns the reason why no instance is eligible; a subset may have none of the service's instances. */
function whyNone({ config, snapshot }: Service, subset: string): SeamReason {
  if (snapshot === null) return 'instances_unknown'
  const wanted = config.subsets?.[subset] ?? {}
  const isAny = snapshot.instances.some((each) => isInSubset(each, wanted))
  return isAny ? 'instances_unavailable' : 'instances_none'
}

function fullOrTried({ snapshot }: Service, tried: ReadonlySet<Endpoint> | null): Set<Endpoint> {
  const passed = new Set(tried)
  for (const { endpoint } of snapshot!.instances) if (endpoint.isFull()) passed.add(endpoint)
  return passed
}

/** Counts an attempt as in flight at its instance until it ends. */
class LoadHandler extends EndingHandler implements Attempt {
  waitedMs = 0
  readonly #endpoint: Endpoint
  readonly #call: Call
  readonly #now: () => number
  #queuedAtMs: number | null = null
  #whenOver: (() => void) | null = null

  constructor(next: DispatchHandler, endpoint: Endpoint, call: Call, now: () => number) {
    super(next)
    this.#endpoint = endpoint
    this.#call = call
    this.#now = now
    endpoint.active++
  }

  get isQueued(): boolean {
    return this.#queuedAtMs !== null
  }

  enqueue(): void {
    this.#queuedAtMs = this.#now()
  }

  dequeue(): void {
    if (this.#queuedAtMs === null) return
    this.waitedMs = this.#now() - this.#queuedAtMs
    this.#call.waitedMs += this.waitedMs
    this.#queuedAtMs = null
  }

  protected override ended(): void {
    this.#endpoint.active--
    this.#whenOver?.()
  }

  /** Calls `end` when the attempt is over, so that a layer below can remove it from its queue. */
  whenOver(end: () => void): void {
    if (this.over) end()
    else this.#whenOver = end
  }
}

export default { name: 'select', layer: select } satisfies MeshConcern
