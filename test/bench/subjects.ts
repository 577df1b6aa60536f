// The subjects: Jingwei bare and with everything on, and the gateways that a user would run instead.
import { everything, passthrough, replying } from './gateway.ts'
import { caddy, haproxy, nginx, script } from './others.ts'
import { packages } from './packages.ts'
import type { Scenario, Size } from './scenarios.ts'

export interface Setup {
  readonly port: number
  readonly originPort: number
  readonly consulUrl: string
  /** For files; the subject's own. */
  readonly folder: string
  /** The checkout of this gateway that is measured. */
  readonly checkout: string
  readonly size: Size
}

export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Path under which the origin is reached, and what the client must send. */
  readonly prefix?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Headers of further clients, of which the requests take turns. All have the same names. */
  readonly clients?: readonly Readonly<Record<string, string>>[]
}

export interface Subject {
  readonly name: string
  readonly launch: (setup: Setup) => Promise<Launch>
  /** The checkout of this gateway that is measured; without, the one that the bench was given. */
  readonly checkout?: string
  /** Selects scenarios; without it, the subject takes part in all that do not compare sizes. */
  readonly takesPart?: (scenario: Scenario) => boolean
}

/** All ratios are to it. */
export const baseline = '@fastify/http-proxy'

/** Servers that respond by themselves: the cost of a connection without any proxy. */
const bare = { takesPart: ({ idle }: Scenario) => idle !== undefined }

export const subjects: readonly Subject[] = [
  { name: 'jingwei passthrough', launch: passthrough, takesPart: () => true },
  { name: 'jingwei everything on', launch: everything },
  { name: 'jingwei with an onSend hook', launch: replying },
  { name: baseline, launch: script('fastify-http-proxy.ts') },
  { name: 'http-proxy-middleware', launch: script('http-proxy-middleware.ts', packages) },
  { name: 'nginx', launch: nginx },
  { name: 'haproxy', launch: haproxy },
  { name: 'caddy', launch: caddy },
  { name: 'bare fastify', launch: script('bare-fastify.ts'), ...bare },
  { name: 'bare node:http', launch: script('bare-http.ts'), ...bare }
]

/** Adds this gateway as another checkout has it, right behind the one that is measured. */
export function against(checkout: string, measured: readonly Subject[]): Subject[] {
  const isGateway = ({ name }: Subject) => name.startsWith('jingwei')
  return measured.flatMap((each) =>
    isGateway(each) ? [each, { ...each, name: `${each.name}, against`, checkout }] : [each]
  )
}
