// A gateway that checks requests, before a service that records them.
import type { Test } from 'tap'
import { eventually } from '../eventually.ts'
import { startGateway, startService } from '../gateway.ts'
import type { AskOptions, Protocol, Received } from './asking-client.ts'
import { anyClient, listenFor } from './asking-client.ts'

export const json = { 'content-type': 'application/json' }

/** A response of the service. */
export interface Given {
  status?: number
  headers?: Record<string, string>
  body?: string | Buffer | readonly string[]
}

interface Got {
  url: string
  body: Buffer
  headers: Record<string, unknown>
  trailers: Record<string, unknown>
}

/** `route`: further keys of the route. `respond`: returns the response of the service. */
export async function validated(
  t: Test,
  validation: object,
  {
    protocol = 'HTTP/1.1',
    route = {},
    respond = () => ({ body: 'ok' })
  }: {
    protocol?: Protocol
    route?: object
    respond?: (url: string) => Given
  } = {}
) {
  const got: Got[] = []
  const service = await startService((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { url = '', headers, trailers } = request
      got.push({ url, headers, trailers, body: Buffer.concat(chunks) })
      const { status = 200, headers: fields = {}, body = '' } = respond(url)
      response.writeHead(status, fields)
      if (typeof body === 'string' || Buffer.isBuffer(body)) response.end(body)
      else {
        for (const chunk of body) response.write(chunk)
        response.end()
      }
    })
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { validation }, ...route }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const { ask, begin } = anyClient(t, protocol, gateway.port)
  const post = (path: string, body: string | Buffer | object, options: AskOptions = {}) => {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)
    return ask(path, { method: 'POST', headers: json, body: bytes, ...options })
  }
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const counted = async (name: string) =>
    (await gateway.server.metrics.metrics()).split('\n').filter((line) => line.startsWith(name) && !line.endsWith(' 0'))
  return { ...gateway, got, ask, begin, post, lineOf, counted }
}

export const problem = ({ body }: Received) =>
  JSON.parse(body.toString()) as Record<string, unknown> & { errors?: object[] }
