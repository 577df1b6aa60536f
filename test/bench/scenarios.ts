// What the clients do, and against what size of a gateway.
export interface Scenario {
  readonly name: string
  readonly path: string
  readonly method?: 'POST'
  /** Size of the request's body. */
  readonly bodyBytes?: number
  readonly connections: number
  /** The size of the gateway's configuration; the requests go to the last route of it. */
  readonly routes?: number
  /** Services with ten instances each. */
  readonly services?: number
}

export const scenarios: readonly Scenario[] = [
  { name: 'small', path: '/small', connections: 50 },
  { name: '64kb', path: '/64kb', connections: 50 },
  { name: '1mb', path: '/1mb', connections: 20 },
  { name: 'post-16kb', path: '/small', method: 'POST', bodyBytes: 16 * 1024, connections: 50 },
  { name: 'routes-1000', path: '/small', connections: 50, routes: 1000 },
  { name: 'instances-10000', path: '/small', connections: 50, services: 1000 }
]
