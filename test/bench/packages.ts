// npm packages that only the benchmark needs, in a folder of their own: the product's dependencies stay its own.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { runToEnd } from '../helpers/processes.ts'

/** Exact, so that figures of two days compare. */
export const versions = { autocannon: '9.0.0', express: '5.3.0', 'http-proxy-middleware': '4.2.1' }

const folder = resolve(import.meta.dirname, '../../.cache/bench-subjects')
let installed: Promise<string> | undefined

/** The folder with the packages in it; installs them when they are missing. */
export function packages(): Promise<string> {
  installed ??= install()
  return installed
}

async function install(): Promise<string> {
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
