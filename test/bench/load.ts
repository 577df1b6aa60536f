// The load generator: wrk, or autocannon where wrk cannot be had.
import { mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { StartOptions } from '../helpers/processes.ts'
import { start } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'
import { packages, versions } from './packages.ts'
import type { Scenario } from './scenarios.ts'

export interface LoadResult {
  readonly p50Ms: number
  readonly p99Ms: number
  /** Number of connection errors and of responses other than 2xx. */
  readonly failures: number
}

/** Clients that can be paused with open connections, so that a slice of load does not include connecting. */
export interface Load {
  go(): void
  pause(): void
  end(): Promise<LoadResult>
}

export interface Target {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly clients: readonly Readonly<Record<string, string>>[]
  readonly scenario: Scenario
}

interface Program {
  readonly name: string
  readonly command: string
  readonly env: NodeJS.ProcessEnv
  readonly ready: StartOptions['ready']
  args(target: Target): string[]
  parse(output: string): LoadResult | null
}

export interface Generator {
  readonly name: string
  /** Starts the load at once. */
  start(target: Target): Promise<Load>
}

export async function generator(folder: string): Promise<Generator> {
  const program = await wrk(folder).catch(async (error: Error) => {
    process.stderr.write(`${error.message}\nusing autocannon instead.\n`)
    return autocannon(await packages())
  })
  return { name: program.name, start: (target) => startLoad(program, target) }
}

async function startLoad({ name, command, env, ready, args, parse }: Program, target: Target): Promise<Load> {
  const running = await start({ command, args: args(target), env, name, ready })
  return {
    go: () => running.kill('SIGCONT'),
    pause: () => running.kill('SIGSTOP'),
    async end() {
      running.kill('SIGCONT')
      running.kill('SIGINT')
      // A SIGINT that wrk's other thread handles ends the load, but does not wake the thread that sleeps until then.
      const again = setInterval(() => running.kill('SIGINT'), 200)
      await running.exited
      clearInterval(again)
      const result = parse(running.output())
      if (result === null) throw new Error(`${name} printed no result: ${running.output()}`)
      return result
    }
  }
}

/** Durations in seconds, longer than any run: the bench ends the clients, and a pause must not count as a timeout. */
const forever = 36000
const timeout = 60 // wrk's memory grows with it

/** Lua code that prints the result. wrk runs the script once per thread; `done` gets the sum of all threads. */
const report = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT %f %f %d\\n',
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

/** Lua code that cycles through the requests of many clients. Each request is built once unless its body is large. */
const cycleClients = (file: string, bodyBytes: number) => `
local clients, built, at = {}, {}, 0
local names
for line in io.lines('${file}') do
  local values = {}
  for value in line:gmatch('[^\\t]+') do values[#values + 1] = value end
  if names == nil then names = values else clients[#clients + 1] = values end
end
request = function()
  at = at % #clients + 1
  local ready = built[at]
  if ready ~= nil then return ready end
  for i, name in ipairs(names) do wrk.headers[name] = clients[at][i] end
  ready = wrk.format()
  if ${bodyBytes} < 4096 then built[at] = ready end
  return ready
end
`

/** Returns a table with tabs: a line of header names, then a line of values for each client. */
function table(clients: Target['clients']): string {
  return [Object.keys(clients[0] ?? {}), ...clients.map(Object.values)].map((values) => values.join('\t')).join('\n')
}

async function wrk(folder: string): Promise<Program> {
  const { path, env } = await tool('wrk')
  return {
    name: 'wrk',
    command: path,
    env,
    ready: () => true,
    args({ url, headers, clients, scenario: { method = 'GET', bodyBytes = 0, connections } }) {
      const own = mkdtempSync(join(folder, 'wrk-'))
      const script = join(own, 'load.lua')
      const list = join(own, 'clients.tsv')
      writeFileSync(list, `${table(clients)}\n`)
      const body = bodyBytes > 0 ? `string.rep('x', ${bodyBytes})` : 'nil'
      const cycle = clients.length > 0 ? cycleClients(list, bodyBytes) : ''
      writeFileSync(script, `wrk.method = '${method}'\nwrk.body = ${body}\n${cycle}${report}`)
      const given = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`])
      const bounds = [`-d${forever}s`, '--timeout', `${timeout}s`]
      return ['-t1', `-c${connections}`, ...bounds, '-s', script, ...given, url]
    },
    parse(output) {
      const found = /RESULT (\S+) (\S+) (\d+)/.exec(output)
      if (found === null) return null
      const [p50, p99, failures] = found.slice(1).map(Number) as [number, number, number]
      return { p50Ms: p50 / 1000, p99Ms: p99 / 1000, failures }
    }
  }
}

interface AutocannonResult {
  readonly latency: { readonly p50: number; readonly p99: number }
  readonly errors: number
  readonly non2xx: number
}

function autocannon(folder: string): Program {
  return {
    name: `autocannon ${versions.autocannon}`,
    command: 'node',
    env: process.env,
    ready: /^started$/m,
    args({ url, headers, clients, scenario: { method = 'GET', bodyBytes = 0, connections } }) {
      const body = bodyBytes > 0 ? { body: 'x'.repeat(bodyBytes) } : {}
      const bounds = { connections, duration: forever, timeout }
      // Each connection of autocannon keeps all requests, so these are fewer than with wrk.
      const requests = clients.slice(0, 1000).map((client) => ({ headers: { ...headers, ...client } }))
      const options = { url, method, headers, ...body, ...bounds, ...(requests.length > 0 && { requests }) }
      return [join(import.meta.dirname, 'autocannon.ts'), folder, JSON.stringify(options)]
    },
    parse(output) {
      const found = /^\{.*\}$/m.exec(output)
      if (found === null) return null
      const { latency, errors, non2xx } = JSON.parse(found[0]) as AutocannonResult
      return { p50Ms: latency.p50, p99Ms: latency.p99, failures: errors + non2xx }
    }
  }
}
