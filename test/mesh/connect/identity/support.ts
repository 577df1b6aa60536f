/** A Consul with responses of the test, which holds blocking queries as a real one does. */
import type { ServerResponse } from 'node:http'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { createGet } from '../../../../plugins/mesh/discovery/consul-get.ts'
import type { ConsulOptions } from '../../../../plugins/mesh/discovery/consul-options.ts'
import { createAgent } from '../../../../plugins/mesh/discovery/consul-query.ts'

interface ScriptedResponse {
  status: number
  body: unknown
  /** Null: Consul never holds this query. */
  index: number | null
}

export async function scripted(t: Test) {
  const responses = new Map<string, ScriptedResponse>()
  const held = new Map<string, Set<ServerResponse>>()
  const requests: string[] = []
  const send = (response: ServerResponse, { status, body, index }: ScriptedResponse) => {
    response.writeHead(status, {
      'content-type': 'application/json',
      ...(index !== null && { 'x-consul-index': String(index) })
    })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://consul')
    requests.push(request.url!)
    const scripted = responses.get(pathname) ?? { status: 500, body: 'no answer', index: null }
    if (scripted.status === 200 && scripted.index !== null && searchParams.get('index') === String(scripted.index)) {
      held.set(pathname, (held.get(pathname) ?? new Set()).add(response))
    } else send(response, scripted)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const consul: ConsulOptions = { url, wait: 60_000, maxStale: 60_000 }
  const agent = createAgent(consul)
  t.teardown(() => agent.destroy())
  return {
    consul,
    get: createGet(consul, agent),
    requests,
    /** Sets the response from now on; held queries get it at once. */
    respond(path: string, body: unknown, index: number | null = null, status = 200) {
      const scripted = { status, body, index }
      responses.set(path, scripted)
      for (const response of held.get(path) ?? []) send(response, scripted)
      held.delete(path)
    },
    /** Number of blocking queries that wait for a change. */
    held: (path: string) => held.get(path)?.size ?? 0
  }
}
