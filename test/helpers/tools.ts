// Finds the real programs that tests, benchmarks and the cluster example work with; fetches what the machine lacks.
// As a command, `node test/helpers/tools.ts [name …]` makes sure of the named ones.
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Wanted } from './debian.ts'
import { onPath, run, unpackDebian } from './debian.ts'

export type ToolName = keyof typeof catalogue

export interface Tool {
  path: string
  /** The whole environment to start it with. */
  env: NodeJS.ProcessEnv
}

interface Entry extends Wanted {
  binary: string
  version: string
}

const prometheus = { folder: 'root-prometheus', packages: ['prometheus'], dependencies: false, version: '--version' }

const catalogue = {
  // Debian has Consul in this one release only; its binary is static.
  consul: {
    folder: 'root-consul',
    packages: ['consul'],
    dependencies: false,
    suite: 'bullseye',
    binary: 'usr/bin/consul',
    version: 'version'
  },
  'redis-server': {
    folder: 'root-redis-server',
    packages: ['redis-server', 'redis-tools'],
    dependencies: true,
    binary: 'usr/bin/redis-server',
    version: '--version'
  },
  haproxy: {
    folder: 'root-haproxy',
    packages: ['haproxy'],
    dependencies: true,
    binary: 'usr/sbin/haproxy',
    version: '-v'
  },
  prometheus: { ...prometheus, binary: 'usr/bin/prometheus' },
  promtool: { ...prometheus, binary: 'usr/bin/promtool' },
  influxd: {
    folder: 'root-influxdb',
    packages: ['influxdb'],
    dependencies: true,
    binary: 'usr/bin/influxd',
    version: 'version'
  },
  nginx: { folder: 'root-nginx', packages: ['nginx'], dependencies: true, binary: 'usr/sbin/nginx', version: '-v' },
  caddy: {
    folder: 'root-caddy',
    packages: ['caddy'],
    dependencies: false,
    binary: 'usr/bin/caddy',
    version: 'version'
  },
  wrk: { folder: 'root-wrk', packages: ['wrk'], dependencies: true, binary: 'usr/bin/wrk', version: '-v' },
  chromium: {
    folder: 'root-chromium',
    packages: ['chromium', 'fonts-dejavu-core', 'fontconfig-config'],
    dependencies: true,
    binary: 'usr/lib/chromium/chromium', // /usr/bin/chromium is a script with absolute paths
    version: '--version'
  }
} satisfies Record<string, Entry>

/** Programs that the tests need. */
export const testTools: ToolName[] = [
  'consul',
  'redis-server',
  'haproxy',
  'prometheus',
  'promtool',
  'influxd',
  'chromium'
]

const cache = resolve(import.meta.dirname, '../../.cache/tools')
const found = new Map<ToolName, Promise<Tool>>()

export function tool(name: ToolName): Promise<Tool> {
  let tool = found.get(name)
  if (!tool) {
    tool = find(name)
    found.set(name, tool)
  }
  return tool
}

async function find(name: ToolName): Promise<Tool> {
  const entry: Entry = catalogue[name]
  const variable = `JINGWEI_${name.toUpperCase().replaceAll('-', '_')}`
  const named = process.env[variable]
  if (named) {
    if (!existsSync(named)) throw new Error(`${variable} names ${named}, which does not exist`)
    return { path: resolve(named), env: process.env }
  }
  const installed = process.env.JINGWEI_TOOLS === 'fetch' ? undefined : onPath(name)
  if (installed) return { path: installed, env: process.env }
  const root = join(cache, entry.folder)
  if (!existsSync(root)) {
    await unpackDebian(cache, entry, (unpacked) => prove(unpacked, entry)).catch((error: Error) => {
      throw new Error(
        `${name} is not on PATH and could not be fetched: ${error.message}\n` +
          `Install it so that the command \`${name}\` is on PATH, or set ${variable} to the path of a binary.`
      )
    })
  }
  return { path: join(root, entry.binary), env: await environment(root) }
}

/** Runs the binary, so that a missing library is reported here rather than within a test. */
async function prove(root: string, entry: Entry): Promise<void> {
  const env = await environment(root)
  const sets = Object.entries(env).flatMap(([key, value]) => (value === process.env[key] ? [] : [`${key}=${value}`]))
  await run('env', [...sets, join(root, entry.binary), entry.version], { timeout: 30_000 }).catch((error: Error) => {
    // wrk prints its version and ends with 1
    if (/error while loading|No such file|not found|ended with (12[67]|SIG)/.test(error.message)) throw error
  })
}

async function environment(root: string): Promise<NodeJS.ProcessEnv> {
  const folders: string[] = []
  for (const lib of ['usr/lib', 'lib'].map((name) => join(root, name))) {
    const triplets = (await readdir(lib).catch(() => [])).filter((name) => /-linux-gnu\w*$/.test(name))
    folders.push(...triplets.flatMap((name) => [join(lib, name), join(lib, name, 'pulseaudio')]).filter(existsSync))
  }
  if (folders.length === 0) return process.env
  const inherited = process.env.LD_LIBRARY_PATH
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    LD_LIBRARY_PATH: [...folders, ...(inherited ? [inherited] : [])].join(':')
  }
  if (existsSync(join(root, 'etc/fonts')) && !existsSync('/etc/fonts')) {
    Object.assign(env, { FONTCONFIG_PATH: join(root, 'etc/fonts'), XDG_DATA_HOME: join(root, 'usr/share') })
  }
  return env
}

if (import.meta.main) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : testTools
  for (const name of names) {
    try {
      if (!Object.hasOwn(catalogue, name)) throw new Error(`unknown; known are ${Object.keys(catalogue).join(', ')}`)
      console.log(`${name}: ${(await tool(name as ToolName)).path}`)
    } catch (error) {
      console.error(`${name}: ${(error as Error).message}`)
      process.exitCode = 1
    }
  }
}
