// Real services for composed routes.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import type { GatewayOptions, RunningGateway, RunningService } from '../../helpers/gateway.ts'
import { startGateway, startService } from '../../helpers/gateway.ts'

export type Handler = (request: IncomingMessage, response: ServerResponse) => void

export function json(
  response: ServerResponse,
  value: unknown,
  headers: Record<string, string> = {},
  status = 200
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
}

/** Starts services by name; they end with the test. */
export async function startServices(
  t: Test,
  handlers: Record<string, Handler>
): Promise<Record<string, RunningService>> {
  const started = Object.entries(handlers).map(async ([name, handler]) => [name, await startService(handler)] as const)
  const services = Object.fromEntries(await Promise.all(started))
  t.teardown(() => Promise.all(Object.values(services).map(({ close }) => close())))
  return services
}

export interface ComposedOptions {
  readonly services: Record<string, Handler>
  readonly compose: object
  /** Keys of the route. */
  readonly route?: object
  /** Keys of the configuration. */
  readonly more?: { readonly services?: object; readonly [key: string]: unknown }
  /** Further routes. */
  readonly routes?: readonly object[]
  readonly before?: GatewayOptions['before']
}

/** Starts a gateway with one composed route, `/c/:id` unless `route` has another match. */
export async function startComposed(
  t: Test,
  { services: handlers, compose, route = {}, more = {}, routes = [], before }: ComposedOptions
): Promise<RunningGateway & { services: Record<string, RunningService> }> {
  const services = await startServices(t, handlers)
  const instances = Object.entries(services).map(([name, { url }]) => [
    name,
    { instances: [url], mesh: { retry: false } }
  ])
  const gateway = await startGateway(
    {
      ...more,
      services: { ...Object.fromEntries(instances), ...more.services },
      routes: [{ name: 'composed', match: { path: '/c/:id', methods: ['GET', 'POST'] }, compose, ...route }, ...routes]
    },
    { log: true, ...(before && { before }) }
  )
  t.teardown(gateway.close)
  return { ...gateway, services }
}
