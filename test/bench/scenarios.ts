// The scenarios: requests of the clients, and the size of the gateway's configuration.

/** The extent of the gateway's configuration; the requests go to the last route, and to the last service. */
export interface Size {
  readonly label: string
  readonly routes: number
  readonly services: number
  /** Instances of each service. */
  readonly instances: number
}

export interface Scenario {
  readonly name: string
  /** Description in the report. */
  readonly about: string
  readonly path: string
  readonly method?: 'POST'
  /** Size of the request's body. */
  readonly bodyBytes?: number
  /** Size of the response body, for scenarios whose report has bytes per CPU second. */
  readonly responseBytes?: number
  readonly connections: number
  /** Sizes of Jingwei's configuration, compared with the first one; no other subject takes part. */
  readonly sizes?: readonly Size[]
  /** Subject with which each concern alone is compared; only subjects with one concern take part besides it. */
  readonly reference?: 'jingwei passthrough'
  /** Number of idle connections, whose cost is measured instead of that of requests. */
  readonly idle?: number
}

export const one: Size = { label: 'one route', routes: 1, services: 1, instances: 1 }

const small = { path: '/small', connections: 50 }

export const scenarios: readonly Scenario[] = [
  { ...small, name: 'small', about: 'GET of 17 bytes, 50 keep-alive connections' },
  {
    ...small,
    name: 'concerns',
    about: 'GET of 17 bytes: what one concern alone adds to proxying',
    reference: 'jingwei passthrough'
  },
  { name: '64kb', about: 'GET of 64 KB, 50 connections', path: '/64kb', responseBytes: 65536, connections: 50 },
  { name: '1mb', about: 'GET of 1 MB, 20 connections', path: '/1mb', responseBytes: 1048576, connections: 20 },
  { ...small, name: 'post-16kb', about: 'POST of 16 KB, 50 connections', method: 'POST', bodyBytes: 16384 },
  {
    ...small,
    name: 'routes-1000',
    about: 'GET of 17 bytes through the last of 1,000 routes',
    sizes: [one, { ...one, label: '1,000 routes', routes: 1000 }]
  },
  {
    ...small,
    name: 'instances-10000',
    about: 'GET of 17 bytes to the last of 1,000 services with 10 instances each',
    sizes: [
      { ...one, label: 'one instance' },
      { ...one, label: '10 instances', instances: 10 },
      { label: '10,000 instances', routes: 1000, services: 1000, instances: 10 }
    ]
  },
  {
    ...small,
    name: 'idle-5000',
    about: '5,000 keep-alive connections, idle after one request each, beside 1,000 others like them',
    idle: 5000
  }
]
