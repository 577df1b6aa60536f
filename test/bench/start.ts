// node test/bench/start.ts [--rounds 5]: CPU time of `check`, CPU and time until a gateway serves, and memory of an idle one,
// for built code and from a checkout, beside bare Fastify with http-proxy. Compare CPU times: times depend on other load.
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { freePort, isListening, runToEnd, start } from '../helpers/processes.ts'
import { cpuUs, memory, spread } from './measure.ts'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } })
const rounds = Number(values.rounds)
const idleMs = 10_000
const checkout = join(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'jingwei-start-'))

interface Subject {
  readonly name: string
  readonly program: string
  readonly isGateway: boolean
}

const subjects: readonly Subject[] = [
  { name: 'Jingwei, built', program: join(folder, 'dist/plugins/bin.js'), isGateway: true },
  { name: 'Jingwei, checkout', program: join(checkout, 'plugins/bin.ts'), isGateway: true },
  { name: 'Jingwei, checkout without a cache', program: join(checkout, 'app.ts'), isGateway: true },
  {
    name: '@fastify/http-proxy',
    program: join(folder, 'http-proxy.mjs'),
    isGateway: false
  }
]

/** Three services with one instance each, and a route to each of them. */
function configuration(port: number): string {
  const names = ['a', 'b', 'c']
  return [
    `listen: { host: 127.0.0.1, port: ${port}, drain: { delay: 0s, timeout: 1s } }`,
    'admin: { host: 127.0.0.1, port: 0 }',
    'services:',
    ...names.map((name) => `  ${name}: { instances: [http://127.0.0.1:9] }`),
    'routes:',
    ...names.map((name) => `  - { name: ${name}, match: { path: /${name} }, service: ${name} }`)
  ].join('\n')
}

/** Milliseconds of CPU of all children that have ended, user and system (proc_pid_stat(5), cutime and cstime). */
function childrenMs(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[13]) + Number(fields[14])) * 10
}

async function checkMs({ program }: Subject): Promise<number> {
  const file = join(folder, 'check.yaml')
  writeFileSync(file, configuration(0))
  const before = childrenMs()
  const { code, stderr } = await runToEnd('node', [program, 'check', file])
  if (code !== 0) throw new Error(stderr)
  return childrenMs() - before
}

async function served({ name, program, isGateway }: Subject) {
  const port = await freePort()
  const file = join(folder, 'gateway.yaml')
  writeFileSync(file, configuration(port))
  const env = { ...process.env, PORT: String(port), ORIGIN: 'http://127.0.0.1:9' }
  const from = performance.now()
  const args = isGateway ? [program, '-c', file] : [program]
  const running = await start({ command: 'node', args, env, name, ready: () => isListening(port), timeout: 60_000 })
  const ms = performance.now() - from
  const cpuMs = cpuUs(running.pid) / 1000
  await sleep(idleMs)
  const bytes = memory(running.pid, 'VmRSS')
  await running.stop()
  return { ms, cpuMs, bytes }
}

try {
  for (const name of ['package.json', 'node_modules']) symlinkSync(join(checkout, name), join(folder, name))
  const built = await runToEnd('node', [join(checkout, '.ci/build.ts'), join(folder, 'dist'), '--package'])
  if (built.code !== 0) throw new Error(built.stderr)
  // The types are stripped here: loading the stripper in the subject would cost 20 MB.
  const reference = readFileSync(join(import.meta.dirname, 'subjects/fastify-http-proxy.ts'), 'utf8')
  writeFileSync(join(folder, 'http-proxy.mjs'), stripTypeScriptTypes(reference))
  const lines = [
    `| | CPU of check | CPU until ready | time until ready | idle, after ${idleMs / 1000} s |`,
    '| --- | --: | --: | --: | --: |'
  ]
  for (const subject of subjects) {
    // The first run fills the cache of a checkout.
    if (subject.isGateway) await checkMs(subject)
    const checks: number[] = []
    const runs: Awaited<ReturnType<typeof served>>[] = []
    for (let round = 0; round < rounds; round++) {
      if (subject.isGateway) checks.push(await checkMs(subject))
      runs.push(await served(subject))
    }
    const seconds = (all: readonly number[]) => (all.length === 0 ? '' : `${(spread(all).median / 1000).toFixed(2)} s`)
    const megabytes = Math.round(spread(runs.map(({ bytes }) => bytes)).median / 1e6)
    const cells = [
      subject.name,
      seconds(checks),
      seconds(runs.map(({ cpuMs }) => cpuMs)),
      seconds(runs.map(({ ms }) => ms)),
      `${megabytes} MB`
    ]
    lines.push(`| ${cells.join(' | ')} |`)
  }
  process.stdout.write(`${lines.join('\n')}\n`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
