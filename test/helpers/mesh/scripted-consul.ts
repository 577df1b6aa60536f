/** A Consul that responds by a script, and sources that query it. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Test } from 'tap'
import type { ServiceConfig } from '../../../config/schema.ts'
import type { InstanceSpec } from '../../../plugins/mesh/core/types.ts'
import { ConsulClient } from '../../../plugins/mesh/discovery/consul/client.ts'
import { ConsulSource, consulTiming } from '../../../plugins/mesh/discovery/consul/source.ts'
import type { ConsulOptions } from '../../../plugins/mesh/discovery/consul-options.ts'
import { discoveryCounters } from '../../../plugins/mesh/discovery/loop.ts'
import { recording, watch } from './sources.ts'

export type Step = (response: ServerResponse, request: IncomingMessage) => void
export interface Seen {
  path: string
  query: Record<string, string>
  headers: IncomingMessage['headers']
  at: number
}

/** Responds to each query with the next step of the script; the last step serves all further queries. */
export async function scripted(t: Test, steps: Step[], options: Partial<ConsulOptions> = {}, timing = {}) {
  const seen: Seen[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
    const step = steps[Math.min(seen.length, steps.length - 1)]
    seen.push({
      path: pathname,
      query: Object.fromEntries(searchParams),
      headers: request.headers,
      at: performance.now()
    })
    step?.(response, request)
  })
  server.on('connection', (socket) => sockets.add(socket.on('close', () => sockets.delete(socket))))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { surroundings, lines, counts } = recording()
  const client = new ConsulClient({ url, wait: 60_000, maxStale: 1000, ...options }, surroundings)
  const counters = discoveryCounters(surroundings.meter)
  const open = (config: ServiceConfig, restored?: readonly InstanceSpec[]) => {
    const source = new ConsulSource(config, client, surroundings, counters, { ...consulTiming, ...timing })
    t.teardown(() => source.close())
    return { source, ...watch(source, restored) }
  }
  t.teardown(() => {
    client.close()
    server.close()
    server.closeAllConnections()
  })
  return { url, open, seen, lines, counts, sockets, client, surroundings, counters }
}

export const entry = (port: number) => ({
  Node: { Node: 'n1', Address: '127.0.0.1' },
  Service: { ID: `web-${port}`, Port: port, Weights: { Passing: 1, Warning: 1 } },
  Checks: []
})
export const origin = (port: number) => `http://127.0.0.1:${port}`
export const respond =
  (index: number | string | null, ports: number[], headers: Record<string, string> = {}): Step =>
  (response) => {
    const own = { 'x-consul-knownleader': 'true', 'x-consul-lastcontact': '0', ...headers }
    response.writeHead(200, {
      'content-type': 'application/json',
      ...(index === null ? {} : { 'x-consul-index': String(index) }),
      ...own
    })
    response.end(JSON.stringify(ports.map(entry)))
  }
export const status =
  (code: number, text: string): Step =>
  (response) =>
    response.writeHead(code, { 'content-type': 'text/plain' }).end(text)
export const hold: Step = () => {}
export const closeConnection: Step = (response) => response.destroy()
