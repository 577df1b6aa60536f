// npm packages that only tests or the benchmark need, in folders of their own: the product's dependencies stay its own.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { copyFile, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { lock, run } from './debian.ts'

const cache = resolve(import.meta.dirname, '../../.cache')
// npm waits 10 s before a retry by default, longer than a test would.
const retries = ['--fetch-retries=2', '--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=3000']
const installed = new Map<string, Promise<string>>()

/** Returns a folder with packages of exactly these versions; installs them when they are missing. */
export function packages(name: string, versions: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(cache, name)
  return once(folder, () => install(folder, versions))
}

/**
 * Returns a folder below `.cache/` with the plugins of `test/plugins/ecosystem`, as its package-lock.json pins them, each
 * with its checksum; installs them when they are missing. Peer dependencies are left out, so that `fastify` is the
 * gateway's own.
 */
export function ecosystemPackages(): Promise<string> {
  return once('ecosystem', () =>
    installLocked('ecosystem', resolve(import.meta.dirname, '../plugins/ecosystem/packages'))
  )
}

/** Returns a folder below `.cache/` with the files of a package, without its dependencies; fetches them when they are missing. */
export function unpacked(name: string, version: string, integrity: string): Promise<string> {
  return once(`${name}-${version}`, async () => {
    const folder = join(cache, `${name}-${version}`)
    if (existsSync(folder)) return join(folder, 'package')
    await mkdir(cache, { recursive: true })
    const unlock = await lock(join(cache, `${name}.lock`))
    const work = `${folder}.part`
    try {
      if (existsSync(folder)) return join(folder, 'package')
      await rm(work, { recursive: true, force: true })
      await mkdir(work)
      await npm(work, ['pack', `${name}@${version}`, ...retries], name)
      const file = `${name}-${version}.tgz`
      const [algorithm = '', digest] = integrity.split(/-(.*)/s)
      const found = createHash(algorithm).update(await readFile(join(work, file))).digest('base64') // biome-ignore format: one line
      if (found !== digest) throw new Error(`${file} has the wrong checksum`)
      await run('tar', ['xzf', file], { cwd: work, timeout: 60_000 })
      await rename(work, folder)
      return join(folder, 'package')
    } finally {
      unlock()
    }
  })
}

function once(key: string, install: () => Promise<string>): Promise<string> {
  let installation = installed.get(key)
  if (installation === undefined) {
    installation = install()
    installed.set(key, installation)
  }
  return installation
}

async function install(folder: string, versions: Readonly<Record<string, string>>): Promise<string> {
  const manifest = JSON.stringify({ private: true, dependencies: versions }, null, 2)
  const done = join(folder, 'installed')
  if (existsSync(done) && readFileSync(done, 'utf8') === manifest) return folder
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), manifest)
  await npm(folder, ['install'], Object.keys(versions).join(', '))
  writeFileSync(done, manifest)
  return folder
}

async function installLocked(name: string, source: string): Promise<string> {
  const files = ['package.json', 'package-lock.json']
  const hash = createHash('sha256')
  for (const file of files) hash.update(await readFile(join(source, file)))
  const folder = join(cache, `${name}-${hash.digest('hex').slice(0, 12)}`)
  if (existsSync(folder)) return folder
  await mkdir(cache, { recursive: true })
  // Several test files start at once: the first installs, the others wait for it.
  const unlock = await lock(join(cache, `${name}.lock`))
  const work = `${folder}.part`
  try {
    if (existsSync(folder)) return folder
    await rm(work, { recursive: true, force: true })
    await mkdir(work)
    for (const file of files) await copyFile(join(source, file), join(work, file))
    const args = ['ci', '--legacy-peer-deps', '--ignore-scripts', ...retries]
    await npm(work, args, `the packages of ${join(source, 'package-lock.json')}`)
    // The folder has its name only when it is complete.
    await rename(work, folder)
    return folder
  } finally {
    unlock()
  }
}

async function npm(folder: string, args: string[], what: string): Promise<void> {
  const options = { cwd: folder, timeout: 300_000 }
  await run('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], options).catch((error: Error) => {
    throw new Error(`cannot install ${what}; is the npm registry reachable? ${error.message}`)
  })
}
