import type { LocalErrorCode } from '../../seam.ts'
import type { Count } from '../core/metrics.ts'
import { counterOf } from '../core/metrics.ts'
import type { MeshDeps } from '../core/types.ts'

/** Time without a failure after which the shortage counts as over. */
const quietMs = 10_000

const resources: Readonly<Record<LocalErrorCode, readonly [reason: string, message: string]>> = {
  JW_OUT_OF_DESCRIPTORS: [
    'descriptors',
    'out of file descriptors: connections to services fail, no instance is blamed; raise the limit (ulimit -n, LimitNOFILE) or lower listen.limits.connections'
  ],
  JW_OUT_OF_MEMORY: [
    'memory',
    'out of memory for sockets: connections to services fail, no instance is blamed; give the host more memory (net.ipv4.tcp_mem)'
  ],
  JW_OUT_OF_PORTS: [
    'ports',
    'out of local ports: connections to services fail, no instance is blamed; widen net.ipv4.ip_local_port_range or add instances'
  ],
  JW_OUT_OF_CPU: [
    'cpu',
    'the event loop was blocked for a second or more: timeouts are extended, no instance is blamed; look for synchronous work in plugins, for swapping, or give the gateway more CPU'
  ]
}

/** Counts failures for lack of a resource of this process or its host, and logs the start and end of a shortage. */
export class Exhaustion {
  readonly #log: MeshDeps['log']
  readonly #counts: Readonly<Record<LocalErrorCode, Count>>
  readonly #timers = new Map<LocalErrorCode, NodeJS.Timeout>()

  constructor({ log, meter }: Pick<MeshDeps, 'log' | 'meter'>) {
    this.#log = log
    const counter = {
      name: 'jingwei_mesh_exhausted_total',
      help: 'Connections to services that failed because the gateway ran out of a resource, and blocks of its event loop.'
    }
    const codes = Object.keys(resources) as LocalErrorCode[]
    const counts = codes.map((code) => [code, counterOf(meter, counter, { reason: resources[code][0] })])
    this.#counts = Object.fromEntries(counts) as Record<LocalErrorCode, Count>
  }

  /** Counts a failed connection or a blocked event loop. `cause` is the error code of the operating system. */
  readonly note = (code: LocalErrorCode, cause?: string): void => {
    this.#counts[code]()
    const running = this.#timers.get(code)
    if (running !== undefined) {
      running.refresh()
      return
    }
    const [reason, message] = resources[code]
    this.#log.error({ reason, ...(cause !== undefined && { cause }) }, message)
    const over = () => {
      this.#timers.delete(code)
      this.#log.info(
        { reason },
        `no longer out of ${reason}: no failure for lack of it in the last ${quietMs / 1000} s`
      )
    }
    this.#timers.set(code, setTimeout(over, quietMs).unref())
  }

  close(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }
}
