/** A configuration with many routes, each of a service of its own and with the concerns that are common. */
export function manyRoutes(count: number): string {
  const numbers = Array.from({ length: count }, (_, i) => i)
  const services = numbers.map(
    (i) => `  service-${i}:
    instances:
      - http://127.0.0.1:${20_000 + i}
      - { url: http://127.0.0.2:${20_000 + i}, weight: 3 }
    mesh:
      retry: { attempts: 2, on: [connect-failure, 503], budget: 20% }
      circuitBreaker: { maxConnections: 1024, errorRatio: 50%, minRequests: 20, window: 10s, openFor: 10s }
      balance: { policy: least-request, slowStart: 30s }`
  )
  const routes = numbers.map(
    (i) => `  - name: route-${i}
    match: { path: /api/${i}, methods: [GET, POST], hosts: [api.example.com] }
    service: service-${i}
    path: { strip: /api }
    edge:
      jwt: { secret: abcdefghijklmnopqrstuvwxyz0123456789, issuer: https://id.example.com, audience: api-${i} }
      rateLimit: { max: ${100 + i}, window: 10s, by: ip }
      cors: { origin: [https://app.example.com], credentials: true }
    mesh: { timeout: 3s, attemptTimeout: 1s, retry: { attempts: 1, on: [connect-failure, 503] } }`
  )
  return `listen: { host: 127.0.0.1, port: 0 }
admin: { host: 127.0.0.1, port: 0 }
mesh: { outlierDetection: { consecutive5xx: 5, interval: 10s } }
services:
${services.join('\n')}
routes:
${routes.join('\n')}
`
}
