/**
 * Keys of other gateways (Kong, APISIX, Traefik, KrakenD, Spring Cloud Gateway, oauth2-proxy …), with the key to write instead. Keys of
 * one advice are separated by bars; case, `-` and `_` do not count.
 */

/** Advice for what a plugin has to do. */
export const plugin = 'it is not built in; a plugin can do it (plugins/README.md)'

const certificates = 'certificates belong to listeners: listen.tls'
const folders = 'an ACME client writes certificates into a folder: listen.tls.folders'
const trusted = 'write the addresses of proxies under listen.trustProxy'

/** Advice for keys of the section `edge`, besides the aliases of concerns. */
const ofEdge: Readonly<Record<string, string>> = {
  'proxyRewrite|addPrefix|prefixPath|rewritePath|setPath|replacePath|replacePathRegex':
    'write path.rewrite at the route',
  'trafficSplit|canary': 'write split at the route',
  prometheus: 'it is always on, at the admin port',
  'redirectScheme|httpsRedirect|redirections|httpToHttps':
    'write listen.redirect: https for a listener, redirect: { scheme: https } at a route',
  redirect: 'write redirect: { to: /new } at the route, instead of "service"',
  'redirectRegex|redirectTo': 'write redirect: {} and path.rewrite.regex at the route, instead of "service"',
  'static|staticFiles|fileServer|tryFiles': 'write files: { root: FOLDER } at the route, instead of "service"',
  'requestTermination|mocking|mock|directResponse|staticResponse|fixedResponse|return':
    'write response: { status: 200, body: … } at the route, instead of "service"',
  'acme|certificatesResolvers': folders,
  'realIp|forwardedHeaders': trusted,
  'zipkin|ldapAuth|digestAuth|serverlessPreFunction|serverlessPostFunction|preFunction|postFunction|brotli': plugin
}

/** Advice for keys of other sections. */
const ofSections: readonly (readonly [place: RegExp, advice: Readonly<Record<string, string>>])[] = [
  [
    /^$/,
    {
      entryPoints: 'write each under "listen"',
      'http|staticResources': 'write "services" and "routes" at the top level',
      'endpoints|apis|apiEndpoints|routers': 'write each under "routes"',
      serviceEndpoints: 'write each under "services"',
      providers: 'write registries under "discovery"',
      tls: 'write listen.tls for clients, mesh.tls for services',
      'certificates|ssls|snis': certificates,
      certificatesResolvers: folders,
      consumerGroups: 'write the groups of each consumer under consumers[].groups',
      'globalRules|defaultFilters': 'write the settings of all routes under the top-level "edge"',
      'pluginConfigs|middlewares|policies|pipelines': 'write what several routes share under "groups"',
      redisConnectionUrl: 'write redis: { url: … }',
      'opentelemetry|observability|otel': 'write tracing: { otlp: { http: { endpoint: … } } }',
      'influxdb2|influxDB|metricsExporter': 'write metricsPush: { url: … }',
      reverseProxy: trusted,
      'httpAddress|httpsAddress': 'write listen: { host, port }'
    }
  ],
  [
    /^\/tracing$/,
    {
      'zipkin|jaeger|datadog|instana': 'spans are exported by OTLP: write otlp: { http: { endpoint: … } }',
      'sampler|samplingRate|samplingRatio|samplingProbability|randomSampling|fraction': 'write sampleRate',
      globalAttributes: 'write resourceAttributes',
      'customTags|capturedResponseHeaders': 'write capturedRequestHeaders; headers of responses are not captured',
      'batchSpanProcessor|batch': 'write queue',
      'endpoint|collector|http|headers': 'write otlp: { http: { endpoint: …, headers: … } }'
    }
  ],
  [
    /^\/tracing\/otlp(\/http)?$/,
    {
      grpc: 'spans are exported over HTTP: write http: { endpoint: "http://HOST:4318/v1/traces" }',
      'tracesEndpoint|address|url': 'write http: { endpoint: … }'
    }
  ],
  [
    /^\/listen(ers)?(\/[^/]+)?$/,
    {
      'forwardedHeaders|realIp': trusted,
      'redirections|httpToHttps|httpsRedirect': 'write redirect: https',
      'certificates|cert|key': 'write it under "tls"'
    }
  ],
  [
    /^\/listen(ers)?(\/[^/]+)?\/tls$/,
    {
      clientAuth: 'write clientCertificate: { mode: require, ca: FILE }',
      'certificatesResolvers|certResolver|acme': folders,
      sniStrict: 'write strict'
    }
  ],
  [
    /^\/services\/[^/]+$/,
    {
      host: 'write instances: ["http://HOST:PORT"], and edge: { host: NAME } at the route or group for another Host header',
      'port|protocol|scheme': 'write instances: ["http://HOST:PORT"]',
      path: 'write it in the URLs of "instances", or as basePath',
      readTimeout: 'write timeout under "mesh"',
      writeTimeout: 'write idleTimeout under "mesh"',
      'discoveryType|serviceName': 'write the key of the source of instances, as under "discovery"',
      'algorithm|hashOn|type|sticky': 'write balance under "mesh"',
      'passHostHeader|passHost': 'write edge: { host: upstream } at the route for the Host of the service',
      keepalivePool: 'write connections under "mesh"',
      plugins: 'write concerns under "edge" of a route or group, and "mesh"'
    }
  ],
  [
    /^\/(routes\/\d+|groups\/[^/]+)$/,
    {
      'uris|rule|predicates|endpoint|paths': 'write it under match: match.path, match.hosts, match.headers …',
      host: 'to match by it, write match.hosts; edge.host chooses the Host that the service gets',
      'preserveHost|passHost|passHostHeader':
        'the client\u2019s Host is passed on; for that of the service write edge.host: upstream',
      'regexPriority|order': 'write priority',
      entryPoints: 'write match.listeners',
      'filters|extraConfig|policies': 'write concerns under "edge" and "mesh", changes of the path under "path"',
      urlPattern: 'write path: { rewrite: { path: /v2/:id } }',
      'upstreamId|serviceId|serviceEndpoint': 'write "service"',
      vars: 'write match.headers, match.query or match.cookies',
      remoteAddrs: 'write match.addresses',
      'protocols|httpsRedirectStatusCode': 'write listen.redirect: https',
      'return|directResponse|staticResponse|fixedResponse|respond|mock|requestTermination':
        'write response: { status: 200, body: … }, instead of "service"',
      'static|staticFiles|fileServer|tryFiles|alias|root': 'write files: { root: FOLDER }, instead of "service"',
      'redirectTo|redirectRegex|redirectScheme|httpToHttps':
        'write redirect: { to: /new } or redirect: { scheme: https }, instead of "service"',
      'inputHeaders|inputQueryStrings|headersToPass|querystringParams':
        'all headers and the whole query are passed on; for a list of those that are, write edge: { headers: { request: { only: … } } }',
      pluginConfigId: 'write group: NAME, and its settings under "groups"',
      'snis|tls': certificates
    }
  ],
  [
    /^\/(routes\/\d+|groups\/[^/]+)\/match$/,
    {
      'rule|uris': 'write path, hosts, headers …',
      vars: 'write headers, query or cookies',
      'pathRegex|pathRegexp|pathPrefix': 'write path: a prefix, or a pattern such as /users/:id(^[0-9]+$)',
      'remoteAddrs|remoteAddr|clientIp|sourceIp': 'write addresses',
      entryPoints: 'write listeners'
    }
  ],
  [
    /^\/consumers\/\d+\/\w+(\/\d+)?$/,
    {
      'key|apiKey': 'write hash: "sha256:…", which the command hash-key prints',
      password: 'write hash: …, which the command hash-password prints'
    }
  ],
  [
    /^\/consumers\/\d+$/,
    {
      customId: 'write it under "tags"',
      'key|apiKey|apiKeys|password|credentials|plugins':
        'write credentials by the name of their method, and what the consumer overrides under "edge"'
    }
  ]
]

/** Normalises a key, so that `strip_path` and `strip-path` are found as `stripPath`. */
export const folded = (key: string) => key.replace(/[_-]/g, '').toLowerCase()

const inTable = (table: Readonly<Record<string, string>>, name: string) =>
  Object.entries(table).find(([keys]) => keys.split('|').some((key) => folded(key) === name))?.[1]

/** Returns the advice for a key of another gateway at a place, a pointer; undefined if there is none. */
export function foreignAdvice(holder: string, key: string): string | undefined {
  const name = folded(key)
  if (/^(\/(routes|groups)\/[^/]+)?\/edge$/.test(holder)) return inTable(ofEdge, name)
  return ofSections.flatMap(([place, table]) => (place.test(holder) ? (inTable(table, name) ?? []) : []))[0]
}
