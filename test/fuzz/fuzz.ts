/**
 * A gateway between fuzzed clients and fuzzed services. All random values come from the seed and the connection's
 * number; only the timing is not reproducible.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunningGateway } from '../helpers/gateway.ts'
import { startGateway } from '../helpers/gateway.ts'
import { judge } from './check.ts'
import { converse } from './client.ts'
import type { Case } from './requests.ts'
import { makeCase, readConnection } from './requests.ts'
import type { Run, World } from './service.ts'
import { startFuzzService } from './service.ts'

export interface Options {
  seed: string
  /** Limits in seconds and connections, after which no new connection is opened. */
  seconds?: number
  connections?: number
  /** Concurrent connections. */
  parallel?: number
  /** Numbers of the only connections to run. */
  cases?: Case[]
  /** Called with each connection's number before it begins. */
  onCase?: (number: number) => void
}

export interface Violation {
  what: string
  case: Case | null
  detail: string
}

export interface Report {
  seed: string
  connections: number
  /** Counts of valid requests that were sent, and of requests that reached a service. */
  requests: number
  forwarded: number
  violations: Violation[]
}

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']
const mostViolations = 20
/** Event-loop delay above which a 504 is no violation. */
const latestMs = 200

export async function fuzz(options: Options): Promise<Report> {
  const { seed, seconds = Infinity, connections = options.cases?.length ?? Infinity, parallel = 48 } = options
  const violations: Violation[] = []
  const world: World = {
    seed,
    runs: new Map(),
    exchanges: new Map(),
    requests: 0,
    violated: (what, run, detail) =>
      violations.push({
        what,
        case: run?.case ?? null,
        detail: `${run?.case.segments.map(escaped).join('\n') ?? ''}\nseen: ${escaped(detail)}`
      })
  }
  const crash = (error: unknown) =>
    violations.push({ what: `crash: ${(error as Error)?.stack ?? error}`, case: null, detail: '' })
  process.on('uncaughtException', crash).on('unhandledRejection', crash)
  const services = await Promise.all([
    startFuzzService(world, { wild: false, attempts: 3 }),
    startFuzzService(world, { wild: true, attempts: 1 }),
    startFuzzService(world, { wild: true, attempts: 3 }),
    startFuzzService(world, { wild: true, attempts: 3 })
  ])
  const gateway = await startGateway(configOf(services.map(({ url }) => url)), { log: true })
  const report = { seed, connections: 0, requests: 0, forwarded: 0, violations }

  async function one(one: Case): Promise<void> {
    const run: Run = { case: one, reading: readConnection(one.segments.join('')), exchanges: [], leftovers: new Set() }
    world.runs.set(one.key, run)
    late.reset()
    const outcome = await converse(gateway.port, run, world.exchanges)
    for (const what of judge(run, outcome, world.exchanges)) {
      // On an overloaded machine, timeouts of the gateway are no violations.
      if (what.includes('504 instead') && late.max > latestMs * 1e6) continue
      violations.push({ what, case: one, detail: describe(run, outcome) })
    }
    // Requests that reach a service from now on belong to no run.
    world.runs.delete(one.key)
    for (const { mark } of run.exchanges) world.exchanges.delete(mark)
    report.connections++
    report.requests += run.reading.requests.length
  }

  const late = monitorEventLoopDelay()
  late.enable()
  const until = performance.now() + seconds * 1000
  let next = 0
  const worker = async () => {
    while (next < connections && performance.now() < until && violations.length < mostViolations) {
      const number = next++
      options.onCase?.(number)
      await one(options.cases?.[number] ?? makeCase(seed, number))
      violations.push(...errorsLogged(gateway))
    }
  }
  await Promise.all(Array.from({ length: parallel }, worker))
  late.disable()
  await settled(gateway, violations)
  await gateway.close()
  for (const service of services) await service.close()
  process.off('uncaughtException', crash).off('unhandledRejection', crash)
  report.forwarded = world.requests
  return report
}

function configOf([sound, wild, ...retried]: string[]): object {
  const routes = Object.entries({
    ok: 'sound',
    wild: 'wild',
    retry: 'retried',
    limit: 'wild',
    strip: 'wild',
    ws: 'wild'
  })
  const more: Record<string, object> = {
    limit: { edge: { bodyLimit: '1kb' } },
    strip: { path: { strip: '/strip' } }
  }
  return {
    listen: { timeouts: { headers: '2s', bodyIdle: '1s', keepAlive: '2s' } },
    edge: { websocket: { idleTimeout: '2s' } },
    mesh: { timeout: '3s', attemptTimeout: '1s', idleTimeout: '1s' },
    services: {
      sound: { instances: [sound] },
      wild: { instances: [wild], mesh: { retry: false } },
      retried: { instances: retried }
    },
    routes: routes.map(([name, service]) => ({ name, match: { path: `/${name}`, methods }, service, ...more[name] }))
  }
}

/** Returns the gateway's own failures out of its log. */
function errorsLogged({ log }: RunningGateway): Violation[] {
  const faults = log.filter((line) => Number(line.level) >= 50 || line.error === 'JW_INTERNAL')
  log.length = 0
  return faults.map((line) => ({ what: 'an internal error is logged', case: null, detail: JSON.stringify(line) }))
}

interface Counted {
  status(): { name: string; instances: { active: number }[] }[]
}

/** Checks that no connection or attempt remains once all clients have disconnected. */
async function settled(gateway: RunningGateway, violations: Violation[]): Promise<void> {
  const { server } = gateway
  const mesh = server.getDecorator<Counted>('mesh')
  const left = async () => {
    const open = await new Promise<number>((resolve) => server.server.getConnections((_error, count) => resolve(count)))
    const active = mesh.status().flatMap(({ instances }) => instances.map((instance) => instance.active))
    return open + active.reduce((sum, count) => sum + count, 0)
  }
  for (let tries = 0; tries < 60 && (await left()) > 0; tries++) await sleep(100)
  const count = await left()
  if (count > 0) violations.push({ what: `${count} connections or attempts remain`, case: null, detail: '' })
}

function describe({ case: one, exchanges }: Run, { received, ending }: { received: string; ending: string }): string {
  const responses = exchanges.map(
    ({ mark, index, request, plan, written }) =>
      `request ${index} as received: ${escaped(`${request.start} ${JSON.stringify(request.headers)} ${request.body}`)}\n` +
      `response ${mark}, ${written ? 'written' : 'incomplete'}, then ${plan.after}, ${JSON.stringify(plan.splits)}: ${escaped(plan.bytes)}`
  )
  return [
    `client: ${JSON.stringify({ ...one, segments: undefined })}`,
    ...one.segments.map((segment) => `sent: ${escaped(segment)}`),
    ...responses,
    `received, then ${ending}: ${escaped(received)}`
  ].join('\n')
}

/** Escapes bytes that are not printable, and shortens repetitions. */
export function escaped(text: string): string {
  const short = text.replace(/([^\r\n])\1{40,}/g, (run, char) => `${char}{${run.length}}`)
  const shown = short.length > 4000 ? `${short.slice(0, 3000)} … ${short.length - 4000} … ${short.slice(-1000)}` : short
  return JSON.stringify(shown).replace(/[\x7f-\xff]/g, (char) => `\\x${char.charCodeAt(0).toString(16)}`)
}
