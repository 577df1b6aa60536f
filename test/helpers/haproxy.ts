// A real HAProxy, the load balancer in front of a cluster of gateways.
import { isListening, runToEnd, start } from './processes.ts'
import { tool } from './tools.ts'

export interface HaproxyOptions {
  configFile: string
  /** Variables that the configuration reads. */
  env?: Record<string, string>
  /** Ports on loopback that must be open before it counts as started. */
  ports?: number[]
}

export interface Haproxy {
  output(): string
  stop(): Promise<void>
}

export async function startHaproxy(options: HaproxyOptions): Promise<Haproxy> {
  const { path, env } = await tool('haproxy')
  const running = await start({
    command: path,
    // A master process reports when its worker serves; both stay in the foreground.
    args: ['-W', '-db', '-f', options.configFile],
    env: { ...env, ...options.env },
    name: 'haproxy',
    ready: async (output) => {
      if (!/Loading success/.test(output)) return false
      const open = await Promise.all((options.ports ?? []).map(isListening))
      return open.every(Boolean)
    }
  })
  return { output: running.output, stop: running.stop }
}

export async function haproxyCheck(configFile: string, env: Record<string, string> = {}) {
  const haproxy = await tool('haproxy')
  return runToEnd(haproxy.path, ['-c', '-f', configFile], { env: { ...haproxy.env, ...env } })
}
