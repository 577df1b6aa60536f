// npm packages that only tests or the benchmark need, in folders of their own: the product's dependencies stay its own.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { runToEnd } from './processes.ts'

const cache = resolve(import.meta.dirname, '../../.cache')
const installed = new Map<string, Promise<string>>()

/** Returns a folder with packages of exactly these versions; installs them when they are missing. */
export function packages(name: string, versions: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(cache, name)
  let installation = installed.get(folder)
  if (installation === undefined) {
    installation = install(folder, versions)
    installed.set(folder, installation)
  }
  return installation
}

async function install(folder: string, versions: Readonly<Record<string, string>>): Promise<string> {
  const manifest = JSON.stringify({ private: true, dependencies: versions }, null, 2)
  const done = join(folder, 'installed')
  if (existsSync(done) && readFileSync(done, 'utf8') === manifest) return folder
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), manifest)
  const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error']
  const { code, stderr } = await runToEnd('npm', args, { timeout: 300_000 })
  if (code !== 0) throw new Error(`npm could not install ${Object.keys(versions)}:\n${stderr}`)
  writeFileSync(done, manifest)
  return folder
}
