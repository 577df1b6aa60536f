// The instances of a service, each in its own process, and the faults that a test injects.
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Consul } from '../../helpers/consul.ts'
import type { Running } from '../../helpers/processes.ts'
import { freePorts, start } from '../../helpers/processes.ts'
import type { Mood } from './instance.ts'

const ready = /orders at (\d+)/

export class Member {
  readonly name: string
  readonly zone: string
  readonly port: number
  readonly #service: string
  readonly #consul: Consul
  #running: Running | null = null

  constructor(service: string, name: string, zone: string, port: number, consul: Consul) {
    this.name = name
    this.zone = zone
    this.port = port
    this.#service = service
    this.#consul = consul
  }

  /** Resolves when the instance serves and is registered. */
  async start(): Promise<void> {
    const { name, zone, port } = this
    const args = [join(import.meta.dirname, 'instance.ts'), this.#service, name, zone, String(port), this.#consul.url]
    this.#running = await start({ command: process.execPath, args, name, ready })
  }

  async be(mood: Mood): Promise<void> {
    await fetch(`http://127.0.0.1:${ready.exec(this.#running!.output())![1]}/${mood}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#running?.kill(signal)
  }

  /** Resolves when the process has exited. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.signal(signal)
    await this.#running?.exited
  }

  async maintenance(enable: boolean): Promise<void> {
    await this.#consul.api('PUT', `/v1/agent/service/maintenance/${this.name}?enable=${enable}`)
  }

  async deregister(): Promise<void> {
    await this.#consul.deregister(this.name)
  }
}

/** Starts one instance per letter, in the zone of that letter; the test's end kills them. */
export async function startFleet(t: Test, consul: Consul, service: string, zones: string): Promise<Member[]> {
  const ports = await freePorts(zones.length)
  const members = [...zones].map(
    (zone, index) => new Member(service, `${service}-${zone}${index}`, zone, ports[index]!, consul)
  )
  t.teardown(() => Promise.all(members.map((member) => member.end('SIGKILL'))))
  await Promise.all(members.map((member) => member.start()))
  return members
}
