// The subjects: Jingwei bare and with everything on, and the alternatives.
import { alone } from './alone.ts'
import { everything, passthrough, replying, requestsOfMany } from './gateway.ts'
import { caddy, haproxy, nginx, script } from './others.ts'
import { packages } from './packages.ts'
import type { Scenario, Size } from './scenarios.ts'

export interface Setup {
  readonly port: number
  readonly originPort: number
  readonly consulUrl: string
  readonly redisUrl: string
  /** The subject's own folder for files. */
  readonly folder: string
  /** The checkout of this gateway that is measured. */
  readonly checkout: string
  readonly size: Size
}

export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Path under which the origin is reached. */
  readonly prefix?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Headers of several clients, whose requests alternate. All have the same names. */
  readonly clients?: readonly Readonly<Record<string, string>>[]
  /** Query of the requests, with its question mark. */
  readonly query?: string
  /** Requests that the origin gets for each one of a client; by default 1. */
  readonly calls?: number
}

export interface Subject {
  readonly name: string
  readonly launch: (setup: Setup) => Promise<Launch>
  /** The checkout of this gateway that is measured; by default that of the option --checkout. */
  readonly checkout?: string
  /** Selects scenarios; without it, the subject takes part in all that compare neither sizes nor concerns. */
  readonly takesPart?: (scenario: Scenario) => boolean
}

/** The subject whose CPU time per request is 1. */
export const baseline = '@fastify/http-proxy'

/** Servers that respond by themselves: the cost of a connection without any proxy. */
const bare = { takesPart: ({ idle }: Scenario) => idle !== undefined }

export const subjects: readonly Subject[] = [
  { name: 'jingwei passthrough', launch: passthrough, takesPart: () => true },
  { name: 'jingwei everything on', launch: everything },
  { name: 'jingwei with an onSend hook', launch: replying },
  { name: baseline, launch: script('fastify-http-proxy.ts') },
  {
    name: `${baseline} (requests of everything on)`,
    launch: async (setup) => ({ ...(await script('fastify-http-proxy.ts')(setup)), ...requestsOfMany() })
  },
  { name: 'http-proxy-middleware', launch: script('http-proxy-middleware.ts', packages) },
  { name: 'nginx', launch: nginx },
  { name: 'haproxy', launch: haproxy },
  { name: 'caddy', launch: caddy },
  {
    name: 'least proxy on node:http',
    launch: script('least-proxy.ts'),
    takesPart: ({ name }) => name === 'small'
  },
  { name: 'bare fastify', launch: script('bare-fastify.ts'), ...bare },
  { name: 'bare node:http', launch: script('bare-http.ts'), ...bare },
  ...alone.map((subject) => ({ ...subject, takesPart: ({ reference }: Scenario) => reference !== undefined }))
]

/** Adds the gateway of another checkout after the one that is measured. */
export function against(checkout: string, measured: readonly Subject[]): Subject[] {
  const isGateway = ({ name }: Subject) => name.startsWith('jingwei')
  return measured.flatMap((each) =>
    isGateway(each) ? [each, { ...each, name: `${each.name}, against`, checkout }] : [each]
  )
}
