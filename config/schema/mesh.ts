/** `mesh`: the concerns of the east-west half, in Envoy's and Consul's words. */
import Type from 'typebox'
import { Duration, Either, Names, orOff, Size, strict, Text, Url } from './kit.ts'
import { Collapse, Fallback, Fault, Hedge, Mirror, Retry } from './mesh-call.ts'
import {
  AdaptiveConcurrency, Balance, balancePolicies, CircuitBreaker, Connections, HealthCheck, Intentions, Limit, OutlierDetection,
  UpstreamTls
} from './mesh-service.ts' // biome-ignore format: a list

const plain = {
  timeout: (more: { default?: string } = {}) =>
    Duration("Whole call, all attempts, from the end of the request to the response's headers.", more),
  attemptTimeout: () =>
    Duration(
      "One attempt, from the end of the request to the response's headers. Unset, `timeout` alone ends attempts."
    ),
  maxHeaderSize: (more: { default?: string } = {}) =>
    Type.Optional(
      Size('Largest header section of a response, and largest trailer section; what is larger is a 502.', more)
    ),
  connectTimeout: (more: { default?: string } = {}) => Duration('TCP and TLS.', more),
  idleTimeout: (more: object = {}) =>
    orOff(Duration('Longest silence once the response runs; of a caller within its request at least this.'), more),
  responseTimeout: () =>
    orOff(
      Duration(
        'Longest time for a whole response, from its headers to its end; not of WebSockets. Unset, only silence is limited, by `idleTimeout`.'
      )
    ),
  balance: (more: object = {}) =>
    Either({ type: 'string' }, Names(balancePolicies), Balance, { description: 'How an instance is chosen.', ...more }),
  mode: (more: object = {}) =>
    Names(['direct', 'sidecar', 'connect'], {
      description:
        'direct unless set; sidecar: through the local listener of `services.NAME.sidecar`; connect: Consul Connect, mTLS to the instances.',
      ...more
    })
}

/** Off unless set; the state of each belongs to the service. */
const perService = {
  connections: Type.Optional(Connections),
  healthCheck: Type.Optional(
    orOff(HealthCheck, { description: 'Active checks by the gateway itself, on top of the registry.' })
  ),
  outlierDetection: Type.Optional(
    orOff(OutlierDetection, { description: 'Passive checks: instances that answer worse than the others are ejected.' })
  ),
  circuitBreaker: Type.Optional(
    orOff(CircuitBreaker, {
      description: 'Caps on what is in flight, and a breaker on the ratio of failed or slow calls.'
    })
  ),
  adaptiveConcurrency: Type.Optional(
    orOff(AdaptiveConcurrency, { description: 'A cap on attempts in flight that follows the latency (gradient).' })
  ),
  limit: Type.Optional(orOff(Limit, { description: 'A token bucket toward the service, of all callers together.' })),
  tls: Type.Optional(orOff(UpstreamTls, { description: 'How https instances are spoken to.' })),
  intentions: Type.Optional(
    orOff(Intentions, { description: "Consul's intentions, asked before a call; on in `mode: connect`." })
  )
}

/** Off unless set; a route may differ from its service. */
const perCall = {
  hedge: Type.Optional(
    orOff(Hedge, {
      description:
        'A second attempt at another instance when the first is slow, within the retry budget. The first answer wins.'
    })
  ),
  collapse: Type.Optional(
    Either({ type: 'boolean' }, Type.Boolean(), Collapse, {
      description: 'Identical GET and HEAD calls in flight share one answer.'
    })
  ),
  fallback: Type.Optional(
    orOff(Type.Array(Fallback, { minItems: 1 }), {
      description: 'What is answered instead of a failure; tried in this order.'
    })
  ),
  mirror: Type.Optional(
    orOff(Mirror, { description: 'A copy of the calls goes to another service; its answers are dropped.' })
  ),
  fault: Type.Optional(orOff(Fault, { description: 'Faults that are injected, to see how the callers fare.' }))
}

const perCallPlain = {
  timeout: Type.Optional(plain.timeout()),
  attemptTimeout: Type.Optional(plain.attemptTimeout()),
  idleTimeout: Type.Optional(plain.idleTimeout()),
  responseTimeout: Type.Optional(plain.responseTimeout()),
  retry: Type.Optional(orOff(Retry))
}

/** What a service may say about the mesh; unset keys come from the top level. */
export const MeshOverride = Type.Object(
  {
    balance: Type.Optional(plain.balance()),
    connectTimeout: Type.Optional(plain.connectTimeout()),
    maxHeaderSize: plain.maxHeaderSize(),
    mode: Type.Optional(plain.mode()),
    ...perCallPlain,
    ...perService,
    ...perCall
  },
  strict
)

/** What a route may: the instances, and so their pools, health and breakers, belong to the service. */
export const RouteMesh = Type.Object(
  {
    ...perCallPlain,
    ...perCall,
    subset: Type.Optional(Type.String({ description: "One of the service's `subsets`." }))
  },
  strict
)

export const Mesh = Type.Object(
  {
    balance: plain.balance({ default: 'least-request' }),
    timeout: plain.timeout({ default: '60s' }),
    attemptTimeout: Type.Optional(plain.attemptTimeout()),
    connectTimeout: plain.connectTimeout({ default: '2s' }),
    maxHeaderSize: plain.maxHeaderSize({ default: '64kb' }),
    idleTimeout: plain.idleTimeout({ default: '60s' }),
    responseTimeout: Type.Optional(plain.responseTimeout()),
    retry: orOff(Retry, { default: {} }),
    ...perService,
    ...perCall,
    mode: Type.Optional(plain.mode()),
    identity: Type.Optional(
      Type.Object({ service: Type.String({ description: 'Consul service that the gateway speaks as.' }) }, strict)
    )
  },
  { ...strict, default: {} }
)

/** Instances by tag and meta, for routes that want only these. */
export const Subset = Type.Object(
  {
    tags: Type.Optional(Type.Array(Text, { description: 'An instance must carry all of them.' })),
    meta: Type.Optional(Type.Record(Type.String(), Type.String(), { description: 'It must have all of these.' }))
  },
  strict
)

export const SidecarUrl = Url('http', 'The local listener of a sidecar that leads to the service; `mode: sidecar`.')
