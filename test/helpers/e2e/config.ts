// A gateway's configuration for these tests: a route for each service, free ports, as a rule no access log.

export interface Wanted {
  /** URL of the Consul agent. */
  consul?: string
  token?: string
  /** Longest time that Consul may hold a blocking query. */
  wait?: string
  /** As under `services:`; each gets the route `/<name>`. */
  services: Record<string, object>
  /** Further routes. */
  routes?: object[]
  /** Further keys of `listen`, and all of `mesh`. */
  listen?: object
  mesh?: object
  adminPort?: number
  plugins?: object[]
  consumers?: object[]
  edge?: object
  tracing?: object
  accessLog?: boolean
}

/** YAML, of which JSON is a part. */
export function yamlOf(wanted: Wanted): string {
  const { consul, token, wait, services, listen, mesh, adminPort = 0, accessLog = false, routes = [] } = wanted
  const { plugins, consumers, edge, tracing } = wanted
  return JSON.stringify({
    listen: { host: '127.0.0.1', port: 0, drain: { delay: '0s', timeout: '5s' }, ...listen },
    admin: { host: '127.0.0.1', port: adminPort },
    discovery: consul === undefined ? {} : { consul: { url: consul, ...(token && { token }), ...(wait && { wait }) } },
    edge: { accessLog, ...edge },
    mesh,
    services,
    routes: [...Object.keys(services).map((name) => ({ name, match: { path: `/${name}` }, service: name })), ...routes],
    plugins,
    tracing,
    consumers
  })
}
