import { didYouMean } from '../../config/nearest.ts'
import type { Config, ServiceConfig } from '../../config/schema.ts'
import type { Transport } from '../mesh/connect/index.ts'
import type { InstanceSpec, Source } from '../mesh/core/types.ts'
import type { Discovery } from '../mesh/discovery/index.ts'
import type { TestClock } from './clock.ts'
import type { ReceivedRequest } from './received-request.ts'
import type { Script, ScriptedInstance, ScriptedService } from './script.ts'
import { checkScript, instancesOf } from './script.ts'
import { Instance } from './scripted-instance.ts'

/** Calls of a service that are kept; the oldest are dropped. */
const mostCalls = 10_000

/** Longest time that a test waits for a call. */
const waitMs = 5000

interface Scripted {
  readonly specs: readonly InstanceSpec[]
  readonly instances: ReadonlyMap<string, Instance>
}

/** The services of a gateway under test, in place of those that discovery would find. */
export class ScriptedServices implements Discovery {
  readonly #config: Pick<Config, 'services'>
  readonly #clock: TestClock
  readonly #scripted = new Map<string, Scripted>()
  readonly #calls = new Map<string, ReceivedRequest[]>()
  readonly #counts = new Map<string, number>()
  readonly #waiting = new Set<() => void>()
  /** Faults of scripts that were not yet thrown to the test. */
  readonly #faults: Error[] = []

  constructor(config: Pick<Config, 'services'>, services: Readonly<Record<string, ScriptedService>>, clock: TestClock) {
    this.#config = config
    this.#clock = clock
    for (const [name, service] of Object.entries(services)) {
      this.#checkName(name)
      this.#scripted.set(name, this.#create(name, instancesOf(name, service)))
    }
  }

  /** Throws the first fault of a script since the last call. */
  throwFault(): void {
    const [fault] = this.#faults.splice(0)
    if (fault !== undefined) throw fault
  }

  calls(name: string): ReceivedRequest[] {
    this.#checkName(name)
    return [...(this.#calls.get(name) ?? [])]
  }

  /** Resolves with the calls of a service once it has received `count`. */
  called(name: string, count: number): Promise<ReceivedRequest[]> {
    this.#checkName(name)
    return new Promise((resolve, reject) => {
      const check = () => {
        if (this.#count(name) < count) return
        end()
        resolve(this.calls(name))
      }
      const late = setTimeout(() => {
        end()
        reject(
          new Error(
            `${name}: timed out after ${waitMs / 1000} s waiting for call ${count}; received ${this.#count(name)}`
          )
        )
      }, waitMs)
      const end = () => {
        clearTimeout(late)
        this.#waiting.delete(check)
      }
      this.#waiting.add(check)
      check()
    })
  }

  respond(name: string, script: Script): void {
    this.#checkName(name)
    checkScript(name, script)
    const scripted = this.#scripted.get(name)
    if (scripted === undefined)
      throw new TypeError(
        `${name}: this service had no script when the gateway was built; add it to \`services\` of testGateway`
      )
    for (const instance of scripted.instances.values()) instance.replace(script)
  }

  forgetCalls(): void {
    this.#calls.clear()
    this.#counts.clear()
  }

  // ---- For the mesh ----

  source({ name }: Pick<ServiceConfig, 'name'>): Source {
    const specs = this.#scripted.get(name)?.specs ?? [specOf(name, 0, {})]
    return {
      start: (publish) => publish(specs),
      status: () => ({ kind: 'scripted', confirmedAt: this.#clock.now(), error: null }),
      close: async () => {}
    }
  }

  readonly transport = ({ name }: Pick<ServiceConfig, 'name'>): Transport => ({
    to: (origin) => this.#scripted.get(name)?.instances.get(origin)?.open ?? this.#missing(name),
    gate: (source) => source,
    permission: null,
    status: () => null,
    close: async () => {}
  })

  async close(): Promise<void> {
    for (const instance of this.#instances()) instance.close()
  }

  /** Resets the connections whose responses are delayed, and those of later responses with a delay. */
  endDelays(): void {
    for (const instance of this.#instances()) instance.endDelays()
  }

  #instances(): Instance[] {
    return [...this.#scripted.values()].flatMap(({ instances }) => [...instances.values()])
  }

  #create(name: string, scripts: readonly ScriptedInstance[]): Scripted {
    const owner = {
      name,
      clock: this.#clock,
      called: (received: ReceivedRequest) => this.#note(received),
      failed: (error: Error) => void this.#faults.push(error)
    }
    const specs = scripts.map((script, index) => specOf(name, index, script))
    const instances = specs.map(({ origin }, index) => new Instance(owner, origin, scripts[index]!.response))
    return { specs, instances: new Map(instances.map((instance) => [instance.origin, instance])) }
  }

  #note(received: ReceivedRequest): void {
    const calls = this.#calls.get(received.service) ?? []
    this.#calls.set(received.service, calls)
    if (calls.push(received) > mostCalls) calls.shift()
    this.#counts.set(received.service, this.#count(received.service) + 1)
    // The delay of the response has begun by then.
    setImmediate(() => {
      for (const check of this.#waiting) check()
    })
  }

  #count(name: string): number {
    return this.#counts.get(name) ?? 0
  }

  /** Refuses the connection; the test fails with the reason. */
  #missing(name: string): ReturnType<Transport['to']> {
    return (callback) => {
      const known = [...this.#scripted.keys()].join(', ') || 'none'
      const error = new Error(
        `service ${name} was called and has no script: add it to \`services\` of testGateway (scripted: ${known})`
      )
      this.#faults.push(error)
      setImmediate(callback, error, null)
      return undefined
    }
  }

  #checkName(name: string): void {
    const names = Object.keys(this.#config.services)
    if (names.includes(name)) return
    const advice = didYouMean(name, names) || `; there are ${names.join(', ') || 'none'}`
    throw new TypeError(`${name} is no service of the configuration${advice}`)
  }
}

function specOf(name: string, index: number, { weight = 1, tags = [], meta = {} }: Partial<ScriptedInstance>) {
  const origin = `http://${name.toLowerCase().replaceAll(/[^a-z0-9.-]/g, '-')}-${index + 1}.test`
  return { id: origin, origin, weight, tags, meta } satisfies InstanceSpec
}
