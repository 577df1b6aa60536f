/** Sidecars as processes. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { folderFor } from './certificates.ts'
import type { Client } from './e2e/gateway.ts'
import { clientOf } from './e2e/gateway.ts'
import type { Running } from './processes.ts'
import { start } from './processes.ts'

export interface Sidecar {
  readonly running: Running
  readonly file: string
  /** Ports by the names of listeners. */
  readonly ports: Readonly<Record<string, number>>
  /** Its admin port. */
  readonly admin: Client
  readonly adminUrl: string
}

/** The sections of a sidecar's file, with free ports where none is given. */
export interface SidecarSections {
  readonly outbound?: readonly object[]
  readonly inbound?: object
  readonly sidecar?: object
  readonly services?: object
  readonly mesh?: object
  readonly discovery?: object
}

export function sidecarText({ outbound = [], inbound, sidecar, services = {}, ...more }: SidecarSections): string {
  const listeners = {
    outbound: outbound.map((each) => ({ ...('path' in each ? {} : { port: 0 }), ...each })),
    ...(inbound && { inbound: { host: '127.0.0.1', port: 0, ...inbound } })
  }
  const drain = { delay: 0, timeout: '2s' }
  return JSON.stringify({
    admin: { host: '127.0.0.1', port: 0 },
    services,
    ...more,
    sidecar: { ...listeners, drain, ...sidecar }
  })
}

const bin = join(import.meta.dirname, '../../plugins/bin.ts')

/** Starts `jingwei sidecar` until the test ends. */
export async function startSidecar(t: Test, sections: SidecarSections, env: NodeJS.ProcessEnv = {}): Promise<Sidecar> {
  const file = join(folderFor(t), 'sidecar.yaml')
  writeFileSync(file, sidecarText(sections))
  return startSidecarFile(t, file, env)
}

export async function startSidecarFile(
  t: Test,
  file: string,
  env: NodeJS.ProcessEnv = {},
  flags: string[] = []
): Promise<Sidecar> {
  const running = await start({
    command: 'node',
    args: [...flags, bin, 'sidecar', '--config', file],
    env: { ...process.env, ...env },
    name: 'jingwei sidecar',
    ready: /jingwei is up/,
    timeout: 60_000
  })
  t.teardown(() => running.stop())
  const output = running.output()
  const listening = output.matchAll(/^ {2}sidecar {2}https?:\/\/[^ ]+:(\d+) \(([^)]+)\)$/gm)
  const ports = Object.fromEntries(Array.from(listening, ([, port, name]) => [name!, Number(port)]))
  const adminUrl = /^ {2}metrics {2}(http:\/\/[^/]+)/m.exec(output)?.[1] ?? ''
  return { running, file, ports, adminUrl, admin: clientOf('http://127.0.0.1:1', adminUrl) }
}
