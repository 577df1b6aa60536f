/** The package as a user gets it: built, packed, and installed by npm into a folder of its own. */
import { copyFileSync, cpSync, globSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Test } from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const home = resolve(import.meta.dirname, '../..')

/** The test runner gives its loaders to every child, which a user's programs do not have. */
export const bare = (command: string, ...args: string[]) => [
  '-c',
  'unset NODE_OPTIONS; exec "$0" "$@"',
  command,
  ...args
]

interface Lock {
  packages: Record<string, { dev?: boolean; dependencies?: object; bin?: object }>
}

export interface Installed {
  /** Folder of the team, with `node_modules`. */
  readonly folder: string
  /** Bytes of the tarball. */
  readonly size: number
  /** Paths of the files in the tarball. */
  readonly files: readonly string[]
  /** Runs a program in the folder until it ends. */
  run(command: string, ...args: string[]): ReturnType<typeof runToEnd>
}

/**
 * Installs the tarball, and the versions of its dependencies that package-lock.json names, into a folder with the files of
 * a team.
 */
export async function install(t: Test, team: string): Promise<Installed> {
  const root = t.testdir({ package: {} })
  const [source, folder] = [join(root, 'package'), join(root, 'team')]
  cpSync(team, folder, { recursive: true })
  const { files } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as { files: string[] }
  const further = files
    .filter((pattern) => !pattern.includes('dist'))
    .flatMap((pattern) => globSync(pattern, { cwd: home }))
  for (const file of ['package.json', 'README.md', 'LICENSE', ...further]) {
    cpSync(join(home, file), join(source, file), { recursive: true })
  }
  const run = async (cwd: string, command: string, args: string[]) => {
    const { npm_execpath: _npm, npm_package_json: _script, INIT_CWD: _calledIn, ...env } = process.env
    return runToEnd('/bin/sh', bare(command, ...args), { cwd, env, timeout: 120_000 })
  }
  const succeed = async (cwd: string, command: string, ...args: string[]) => {
    const { code, stdout, stderr } = await run(cwd, command, args)
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}: ${stderr}${stdout}`)
    return stdout
  }
  await succeed(source, process.execPath, join(home, '.ci/build.ts'), join(source, 'dist'), '--package')
  const [packed] = JSON.parse(await succeed(source, 'npm', 'pack', '--ignore-scripts', '--json')) as [
    { filename: string; size: number; files: { path: string }[] }
  ]
  copyFileSync(join(source, packed.filename), join(folder, 'jingwei.tgz'))

  const { packages } = JSON.parse(readFileSync(join(home, 'package-lock.json'), 'utf8')) as Lock
  const own = packages['']!
  const manifest = { name: 'team', version: '1.0.0', type: 'module', dependencies: { jingwei: 'file:jingwei.tgz' } }
  const needed = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true)
  const jingwei = { version: '0.1.0', resolved: 'file:jingwei.tgz', dependencies: own.dependencies, bin: own.bin }
  const lock = {
    name: 'team',
    lockfileVersion: 3,
    packages: { '': manifest, ...Object.fromEntries(needed), 'node_modules/jingwei': jingwei }
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify(lock))
  await succeed(folder, 'npm', 'ci', '--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund')
  return {
    folder,
    size: packed.size,
    files: packed.files.map(({ path }) => path),
    run: (command, ...args) => run(folder, command, args)
  }
}

/** Adds development tools of the checkout: the compiler finds the types of Node. */
export async function compile({ folder, run }: Installed): ReturnType<Installed['run']> {
  const modules = join(home, 'node_modules')
  for (const name of ['@types', 'undici-types']) symlinkSync(join(modules, name), join(folder, 'node_modules', name))
  return run(process.execPath, join(modules, 'typescript/bin/tsc'), '-p', folder)
}
