/** Sections of the process itself: listeners, admin port, discovery, Redis. */
import Type from 'typebox'
import { forwardingHeaders } from '../header-names.ts'
import {
  Count,
  Duration,
  DurationOrZero,
  Either,
  ListenHost,
  Name,
  Names,
  orOff,
  Port,
  Size,
  SizeOrZero,
  strict,
  Url
} from './kit.ts'
import { Tls } from './tls.ts'

const Reading = (description: string) => Names(['guard', 'ignore', 'distinct'], { default: 'guard', description })

const Paths = Type.Object(
  {
    case: Reading('`/API` for `/api`.'),
    trailingSlash: Reading('`/users/7/` for `/users/:id`.'),
    trailingDot: Reading('Dots and blanks at the end of a segment: `/users.` and `/users%20` for `/users`.')
  },
  {
    ...strict,
    default: {},
    description:
      'Spellings that common servers take for one path. guard: told apart, but refused with 400 where routes with other edge concerns could be meant. ignore: matched alike. distinct: told apart; only where all services do so, too.'
  }
)

export const Listen = Type.Object(
  {
    name: {
      ...Name,
      default: 'default',
      description: 'Unique. Tells listeners apart in what is counted and logged, and as `request.listener`.'
    },
    host: ListenHost('0.0.0.0'),
    port: Type.Integer({ minimum: 0, maximum: 65535, default: 8080 }),
    path: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Unix socket, in place of `host` and `port`. A file that an earlier process has left there is replaced; one on which somebody listens is not.'
      })
    ),
    socketMode: Type.String({
      pattern: '^0?[0-7]{3}$',
      expected: 'three octal digits such as 0660',
      default: '0660',
      description: 'With `path`: who may connect, as the permissions of the file.'
    }),
    tls: Type.Optional(Tls),
    http2: Type.Boolean({ default: false, description: 'Also speak HTTP/2 (ALPN); needs `tls`.' }),
    redirect: Type.Optional(
      Either(
        { type: 'string' },
        Names(['https'], {
          description:
            'Respond to all requests with a redirect to the same URL with https, at the port of the first listener with TLS. Only for hosts that a route or a certificate names; others get the status of `unknownHost`. A route for a path below `/.well-known/acme-challenge/` is served, and so is what a trusted proxy got by https.'
        }),
        Type.Object(
          {
            to: Names(['https'], { default: 'https' }),
            port: Type.Optional(Port('Port in the URL; default: that of the first listener with TLS.', 1)),
            status: Type.Unsafe<301 | 308>({
              type: 'integer',
              enum: [301, 308],
              default: 308,
              description: '301 is for GET and HEAD; other methods get 308 all the same.'
            })
          },
          strict
        )
      )
    ),
    trustProxy: Type.Array(Type.String({ format: 'peer' }), {
      default: [],
      description:
        'Peers whose forwarding headers are believed: addresses or CIDR ranges; on a Unix socket `unix`, which is everybody who may connect.'
    }),
    trustHeaders: Type.Array(Names(forwardingHeaders), {
      default: ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port'],
      description:
        'Forwarding headers that are believed of these peers; a peer must set or delete each of them itself. All others are dropped, from whomever they come.'
    }),
    timeouts: Type.Object(
      {
        headers: Duration('A client must send its whole request head within this time.', { default: '10s' }),
        bodyIdle: Duration('Longest silence of a client within its request body.', { default: '30s' }),
        body: orOff(
          Duration('A client must send its whole request body within this time; waits for the service do not count.'),
          { default: '6h' }
        ),
        sendIdle: Duration(
          'A client that reads nothing of its response for this long is disconnected; over HTTP/2, less than 64 KB.',
          { default: '60s' }
        ),
        keepAlive: Duration('How long an idle client connection stays open.', { default: '75s' })
      },
      { ...strict, default: {} }
    ),
    limits: Type.Object(
      {
        headers: Size(
          'Largest header section of a request, with its request line; what is larger is a 431. `mesh.maxHeaderSize` is the same for responses.',
          {
            default: '16kb'
          }
        ),
        url: Size('Longest request target.', { default: '8kb' }),
        connections: Type.Integer({ minimum: 1, default: 10000, description: 'Most client connections at a time.' }),
        bodyRate: orOff(
          SizeOrZero('Bytes per second that a client must send of a request body, after the first `bodyIdle`.'),
          { default: '240b' }
        ),
        sendRate: orOff(
          SizeOrZero('Bytes per second that a client must read of a response, after the first `sendIdle`.'),
          {
            default: '240b'
          }
        ),
        perClient: Type.Object(
          {
            connections: orOff(Count('Connections of one address; more are closed. Not for peers of `trustProxy`.'), {
              default: 1024
            }),
            requests: orOff(Count('Requests in flight of one client; more get 429.'), { default: 512 }),
            websockets: orOff(Count('WebSockets of one client; more get 429.'), { default: 256 })
          },
          {
            ...strict,
            default: {},
            description: 'By client address, as `trustProxy` has it; of an IPv6 address its /64 network.'
          }
        )
      },
      { ...strict, default: {} }
    ),
    paths: Paths,
    unknownHost: Type.Unsafe<404 | 421>({
      type: 'integer',
      enum: [404, 421],
      default: 404,
      description: 'Status for hosts that no route can match. 421 lets HTTP/2 clients try another connection.'
    }),
    drain: Type.Object(
      {
        delay: DurationOrZero('After SIGTERM: how long readiness says 503 while requests are still taken.', {
          default: '5s'
        }),
        timeout: DurationOrZero('Then: how long requests in flight may take before they are cut.', { default: '25s' })
      },
      { ...strict, default: {} }
    )
  },
  strict
)

/** One listener, or several. */
export const listenersOf = <T extends Type.TSchema>(listener: T) =>
  Either({ type: 'array' }, Type.Array(listener, { minItems: 1, maxItems: 100 }), listener, { default: {} })

export const Listeners = listenersOf(Listen)

export const Admin = Type.Object(
  {
    host: ListenHost('127.0.0.1'),
    port: Type.Integer({ minimum: 0, maximum: 65535, default: 8081 }),
    hosts: Type.Array(
      Type.String({
        pattern: '^(\\*\\.)?[A-Za-z0-9_.:-]+$',
        expected: 'a host name or address such as gateway-1.internal or *.internal'
      }),
      {
        default: [],
        description:
          'Further values of `Host` that the port answers to, such as the name of its Kubernetes service. By default: the address that was connected to, loopback, `host`, and the machine’s host name. Others get 421, against DNS rebinding.'
      }
    )
  },
  strict
)

export const ConsulDiscovery = Type.Object(
  {
    url: Url('http', 'The HTTP API of a Consul agent.'),
    token: Type.Optional(
      Type.String({
        description:
          'ACL token; `service:read` and `node:read` are enough, with `agent:read` for `balance.locality` unless `discovery.locality` says it.'
      })
    ),
    datacenter: Type.Optional(Type.String()),
    namespace: Type.Optional(Type.String({ description: 'Consul Enterprise namespace.' })),
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(Type.String({ description: 'PEM file.' })),
          cert: Type.Optional(Type.String({ description: 'PEM file.' })),
          key: Type.Optional(Type.String({ description: 'PEM file.' })),
          serverName: Type.Optional(Type.String())
        },
        strict
      )
    ),
    wait: Duration('Longest time a blocking query is held by Consul.', { default: '1m' }),
    maxStale: Duration('An answer from a server that has been without a leader for longer is not believed.', {
      default: '1m'
    })
  },
  strict
)

export const Discovery = Type.Object(
  {
    consul: Type.Optional(ConsulDiscovery),
    snapshot: Type.Optional(
      Type.Object(
        {
          path: Type.String({ description: 'File that keeps the last instances over a restart.' }),
          maxAge: Duration('An older one is not believed.', { default: '24h' })
        },
        strict
      )
    ),
    locality: Type.Optional(
      Type.Object(
        {
          datacenter: Type.Optional(Type.String({ description: "Default: that of Consul's agent." })),
          zone: Type.Optional(
            Type.String({ description: "Default: the zone of the Consul agent's locality, else its node meta `zone`." })
          )
        },
        { ...strict, description: 'Where the gateway is, for `balance.locality`.' }
      )
    )
  },
  { ...strict, default: {} }
)

export const Redis = Type.Object(
  {
    url: Url('redis', 'The Redis that holds what the nodes of a cluster share.'),
    timeout: Duration('Longest time a request waits for Redis before the node decides alone.', { default: '50ms' })
  },
  strict
)
