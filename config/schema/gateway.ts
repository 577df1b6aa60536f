/** Schemas of the sections that belong to the process: listeners, admin port, discovery, Redis. */
import type { TSchema } from 'typebox'
import { token } from '../../plugins/http-syntax.ts'
import { forwardingHeaders } from '../header-names.ts'
import { Direction, InboundConnect } from './inbound.ts'
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
import Type from './type.ts'

const Reading = (description: string) => Names(['guard', 'ignore', 'distinct'], { default: 'guard', description })

const Paths = Type.Object(
  {
    case: Reading('Upper and lower case: `/API` and `/api`.'),
    trailingSlash: Reading('A slash at the end: `/users/7/` for `/users/:id`.'),
    trailingDot: Reading('Dots and spaces at the end of a segment: `/users.` and `/users%20` for `/users`.')
  },
  {
    ...strict,
    default: {},
    description:
      'Treatment of different spellings that common servers read as the same path. guard: each spelling is a different path, but a request gets 400 if another spelling of its path belongs to a route with other edge concerns. ignore: all spellings match the same routes. distinct: each spelling is a different path, without the check; safe only if all services distinguish them, too.'
  }
)

export const Listen = Type.Object(
  {
    name: {
      ...Name,
      default: 'default',
      description: 'Unique name of the listener, in metric labels, in logs and as `request.listener`.'
    },
    enabled: Type.Boolean({
      default: true,
      description:
        'false: the listener is checked, but does not listen. A variable lets one file serve several processes.'
    }),
    host: ListenHost('0.0.0.0'),
    port: Type.Integer({ minimum: 0, maximum: 65535, default: 8080 }),
    path: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Path of a Unix socket, instead of `host` and `port`. A stale socket file of an earlier process is replaced; a socket on which a process listens is not.'
      })
    ),
    socketMode: Type.String({
      pattern: '^0?[0-7]{3}$',
      expected: 'three octal digits such as 0660',
      default: '0660',
      description: 'With `path`: permissions of the socket file, which decide which users may connect.'
    }),
    tls: Type.Optional(Tls),
    connect: Type.Optional(InboundConnect),
    direction: Type.Optional(Direction),
    http2: Type.Boolean({ default: false, description: 'Also speak HTTP/2 (ALPN); needs `tls` or `connect`.' }),
    redirect: Type.Optional(
      Either(
        { type: 'string' },
        Names(['https'], {
          description:
            'Respond to requests with a redirect to the same URL with https, at the port of the first listener with TLS. Only hosts that a route or a certificate names are redirected; others get the status of `unknownHost`. Not redirected: routes for a path below `/.well-known/acme-challenge/`, and requests that a trusted proxy received over https.'
        }),
        Type.Object(
          {
            to: Names(['https'], { default: 'https' }),
            port: Type.Optional(Port('Port in the URL; default: that of the first listener with TLS.', 1)),
            status: Type.Unsafe<301 | 308>({
              type: 'integer',
              enum: [301, 308],
              default: 308,
              description: 'Status of the redirect. With 301, methods other than GET and HEAD still get 308.'
            })
          },
          strict
        )
      )
    ),
    trustProxy: Type.Array(Type.String({ format: 'peer' }), {
      default: [],
      description:
        'Proxies whose forwarding headers are trusted: addresses or CIDR ranges. On a Unix socket: `unix`, which trusts every process that may connect.'
    }),
    trustHeaders: Type.Array(Names(forwardingHeaders), {
      default: ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port'],
      description:
        'Forwarding headers that are trusted if they come from `trustProxy`. Such a proxy must set or delete each of them itself. All other forwarding headers are dropped, also those of trusted proxies.'
    }),
    timeouts: Type.Object(
      {
        headers: Duration('A client must send the whole header section of a request within this time.', {
          default: '10s'
        }),
        bodyIdle: Duration('Longest pause of a client within its request body.', { default: '30s' }),
        body: orOff(
          Duration(
            'A client must send its whole request body within this time. Waiting for the service does not count.'
          ),
          { default: '6h' }
        ),
        sendIdle: Duration(
          'A client that reads nothing of its response for this long is disconnected (HTTP/2: less than 64 KB in this time).',
          { default: '60s' }
        ),
        keepAlive: Duration('An idle client connection is closed after this time.', { default: '75s' })
      },
      { ...strict, default: {} }
    ),
    limits: Type.Object(
      {
        headers: Size(
          'Largest header section of a request, including the request line; a larger one gets 431. `mesh.maxHeaderSize` is the same for responses.',
          {
            default: '16kb'
          }
        ),
        url: Size('Longest request target (path and query).', { default: '8kb' }),
        connections: Type.Integer({ minimum: 1, default: 10000, description: 'Maximum of open client connections.' }),
        bodyRate: orOff(
          SizeOrZero('Bytes per second of a request body that a client must send, counted after the first `bodyIdle`.'),
          { default: '240b' }
        ),
        sendRate: orOff(
          SizeOrZero('Bytes per second of a response that a client must read, counted after the first `sendIdle`.'),
          {
            default: '240b'
          }
        ),
        perClient: Type.Object(
          {
            connections: orOff(
              Count('Open connections of one address; more are closed. Proxies of `trustProxy` are exempt.'),
              {
                default: 1024
              }
            ),
            requests: orOff(Count('Requests in flight from one client; more get 429.'), { default: 512 }),
            websockets: orOff(Count('Open WebSockets of one client; more get 429.'), { default: 256 })
          },
          {
            ...strict,
            default: {},
            description: 'Limits per client address (`trustProxy` applies). IPv6 addresses are counted per /64 network.'
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
      description: 'Status of responses for hosts that no route names. 421 lets HTTP/2 clients try another connection.'
    }),
    drain: Type.Object(
      {
        delay: DurationOrZero(
          'After SIGTERM, readiness responds 503 for this long while requests are still accepted.',
          {
            default: '5s'
          }
        ),
        timeout: DurationOrZero('After `delay`, requests in flight may take this long; then they are aborted.', {
          default: '25s'
        })
      },
      { ...strict, default: {} }
    )
  },
  strict
)

/** One listener, or several. */
export const listenersOf = <T extends TSchema>(listener: T) =>
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
          'Further accepted values of `Host`, such as the name of a Kubernetes service. Always accepted: the address of the connection, loopback, `host`, and the machine’s host name. Others get 421, as protection against DNS rebinding.'
      }
    )
  },
  strict
)

/** The section `discovery`, without the keys of sources. */
export const Discovery = Type.Object(
  {
    default: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'Registry that finds services which name no source. Default: the only one that is configured.'
      })
    ),
    snapshot: Type.Optional(
      Type.Object(
        {
          path: Type.String({
            description:
              'File in which the last known instances survive a restart; `PATH.key`: the last known consumers.'
          }),
          maxAge: Duration('An older file is ignored.', { default: '24h' })
        },
        strict
      )
    ),
    locality: Type.Optional(
      Type.Object(
        {
          datacenter: Type.Optional(Type.String({ description: 'Default: the datacenter of the Consul agent.' })),
          zone: Type.Optional(
            Type.String({
              description: "Default: the zone in the Consul agent's locality, or else its node meta `zone`."
            })
          )
        },
        { ...strict, description: 'Location of the gateway, for `balance.locality`.' }
      )
    )
  },
  { ...strict, default: {} }
)

export const Redis = Type.Object(
  {
    url: Url('redis', 'URL of the Redis that the nodes share, for all that is stored with `store: redis`.'),
    timeout: Duration(
      'A request waits for Redis at most this long; then the node uses its own counters, and no stored responses.',
      { default: '50ms' }
    )
  },
  strict
)

/** The section `metricsPush`. */
export const MetricsPush = Type.Object(
  {
    format: Names(['influx'], {
      default: 'influx',
      description: 'influx: the line protocol of InfluxDB, which Telegraf and VictoriaMetrics also read.'
    }),
    url: Url(
      'http',
      'URL to which all series are posted, with its query: `http://influx:8086/write?db=gateway`. A user and password in it are sent by the scheme `Basic`.'
    ),
    interval: Duration('Time from one push to the next.', { default: '10s' }),
    timeout: Duration('Longest time for a push. The next one has all that a failed one had.', { default: '5s' }),
    headers: Type.Record(
      Type.String({ pattern: token.source }),
      Type.String({ pattern: '^[\\t -~]*$', expected: 'printable ASCII' }),
      { default: {}, description: 'Headers of the request, such as `authorization: "Token …"`.' }
    ),
    tags: Type.Record(
      Type.String({ pattern: '^[A-Za-z][A-Za-z0-9_]*$' }),
      Type.String({ pattern: '^[ -\\[\\]-~]+$', expected: 'printable ASCII without backslashes' }),
      {
        default: {},
        description: 'Tags of all lines, besides `host`, the name of the machine, and `role`, `gateway` or `sidecar`.'
      }
    )
  },
  {
    ...strict,
    description: 'Sends all series of the admin port to a server, for monitoring systems that do not scrape them.'
  }
)
