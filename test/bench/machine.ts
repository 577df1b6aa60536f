// The machine and the versions that the figures were measured with.
import { readFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { runToEnd } from '../helpers/processes.ts'
import type { ToolName } from '../helpers/tools.ts'
import { tool } from '../helpers/tools.ts'
import { versions } from './packages.ts'

const natives: Partial<Record<ToolName, string>> = { nginx: '-v', haproxy: '-v', caddy: 'version' }

/** Returns the description of machine and versions for the report. */
export async function machine(checkout: string, subjects: readonly string[], generator: string): Promise<string> {
  const version = (name: string) =>
    (JSON.parse(readFileSync(join(checkout, 'node_modules', name, 'package.json'), 'utf8')) as { version: string })
      .version
  const cores = cpus()
  const { code, stdout } = await runToEnd('git', ['-C', checkout, 'describe', '--always', '--dirty'])
  const parts = [
    `Node ${process.versions.node}`,
    ...['undici', 'fastify', '@fastify/http-proxy'].map((name) => `${name} ${version(name)}`)
  ]
  if (subjects.includes('http-proxy-middleware')) {
    parts.push(`http-proxy-middleware ${versions['http-proxy-middleware']} on Express ${versions.express}`)
  }
  for (const [name, option] of Object.entries(natives)) {
    if (subjects.includes(name)) parts.push(`${name} ${await nativeVersion(name as ToolName, option)}`)
  }
  const commit = code === 0 ? ` (commit ${stdout.trim()})` : ''
  return (
    `${new Date().toISOString().slice(0, 10)}${commit}; ${cores[0]!.model.trim()}, ${cores.length} cores, ` +
    `Linux ${release()}; ${parts.join(', ')}; load from ${generator}.`
  )
}

async function nativeVersion(name: ToolName, option: string): Promise<string> {
  const { path, env } = await tool(name)
  const { stdout, stderr } = await runToEnd(path, [option], { env })
  return /\d+\.\d+(\.\d+)?/.exec(stdout + stderr)?.[0] ?? '(unknown version)'
}
