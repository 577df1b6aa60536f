// Unpacks Debian packages into a folder, without installing them: apt works on a private state, so this needs no root
// and leaves the machine as it is.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import {
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile
} from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'

export interface Wanted {
  /** Folder to make, below the cache folder. */
  folder: string
  packages: string[]
  /** Fetch the libraries that the machine lacks, too. Static binaries need none. */
  dependencies: boolean
  /** A Debian release other than the machine's own. */
  suite?: string
}

const second = 1000
const listsStayFresh = 3600 * second

/** `prove` checks the unpacked folder before it gets its final name: a folder with that name works. */
export async function unpackDebian(
  cache: string,
  wanted: Wanted,
  prove: (root: string) => Promise<void>
): Promise<void> {
  for (const command of ['apt-get', 'dpkg', 'flock']) {
    if (!onPath(command)) throw new Error(`no ${command} on this machine`)
  }
  await mkdir(cache, { recursive: true })
  const unlock = await lock(join(cache, 'lock'))
  const work = await mkdtemp(join(cache, 'tmp-'))
  try {
    const target = join(cache, wanted.folder)
    if (existsSync(target)) return // another process was first
    const config = await privateApt(cache, wanted.suite)
    const debs = await download(config, work, wanted)
    const root = join(work, 'root')
    await mkdir(root)
    for (const deb of debs) await run('dpkg', ['-x', deb, root], { timeout: 300 * second })
    for (const folder of ['usr/bin', 'usr/sbin']) await relink(root, folder)
    await prove(root)
    await rename(root, target)
  } finally {
    await rm(work, { recursive: true, force: true })
    unlock()
  }
}

export function onPath(command: string): string | undefined {
  // An ordinary user's PATH lacks the sbin folders, where Debian keeps some servers.
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  return folders.map((folder) => join(folder, command)).find((path) => path.startsWith('/') && existsSync(path))
}

/** Runs a command to its end; throws with its output if it fails. */
export function run(command: string, args: string[], options: { timeout: number; cwd?: string }): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' }
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
      env,
      killSignal: 'SIGKILL'
    })
    let output = ''
    const collect = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-20_000)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output)
      else reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}:\n${output.trim()}`))
    })
  })
}

/** The kernel releases this lock when its holder ends, also after a crash. */
export function lock(file: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const holder = spawn('flock', ['--wait', '900', file, 'sh', '-c', 'echo locked; cat'], {
      stdio: ['pipe', 'pipe', 'inherit']
    })
    holder.stdin.on('error', () => {})
    holder.stdout.once('data', () => resolve(() => holder.stdin.end()))
    holder.once('error', reject)
    holder.once('exit', (code) => reject(new Error(`could not lock ${file}: flock ended with ${code}`)))
  })
}

async function privateApt(cache: string, suite?: string): Promise<string> {
  const home = join(cache, `apt-${suite ?? 'machine'}`)
  const lists = join(home, 'state/lists')
  for (const folder of [join(lists, 'partial'), join(home, 'cache'), join(home, 'sources')]) {
    await mkdir(folder, { recursive: true })
  }
  const { list, stanzas } = await debianSources(suite)
  await writeFile(join(home, 'sources/debian.list'), list.join('\n'))
  await writeFile(join(home, 'sources/debian.sources'), stanzas.join('\n\n'))
  const config = join(home, 'apt.conf')
  await writeFile(
    config,
    [
      `Dir::State "${join(home, 'state')}";`,
      `Dir::Cache "${join(home, 'cache')}";`,
      'Dir::Etc::sourcelist "/dev/null";',
      `Dir::Etc::sourceparts "${join(home, 'sources')}";`,
      'Dir::Etc::preferences "/dev/null";',
      'Dir::Etc::preferencesparts "/dev/null";',
      'Debug::NoLocking "true";',
      'APT::Sandbox::User "root";', // root's own folders may be closed to the user _apt
      'Acquire::Languages "none";',
      'Acquire::Retries "3";',
      'Acquire::http::Timeout "30";',
      'Acquire::https::Timeout "30";',
      // Hooks of the machine, some of which would clean its own caches.
      '#clear APT::Update::Pre-Invoke;',
      '#clear APT::Update::Post-Invoke;',
      '#clear APT::Update::Post-Invoke-Success;',
      '#clear DPkg::Pre-Invoke;',
      '#clear DPkg::Post-Invoke;',
      '#clear DPkg::Pre-Install-Pkgs;'
    ].join('\n')
  )
  const stamp = join(home, 'updated')
  const updated = await stat(stamp).then(
    (file) => file.mtimeMs,
    () => 0
  )
  if (Date.now() - updated > listsStayFresh) {
    await run('apt-get', ['-c', config, '-q', 'update', '--error-on=any'], { timeout: 300 * second })
    await writeFile(stamp, '')
  }
  return config
}

async function download(config: string, work: string, wanted: Wanted): Promise<string[]> {
  const archives = join(work, 'debs')
  await mkdir(join(archives, 'partial'), { recursive: true })
  const apt = ['-c', config, '-o', `Dir::Cache::archives=${archives}`, '-q', '-y']
  const options = { timeout: 900 * second, cwd: archives }
  if (wanted.dependencies) {
    await run('apt-get', [...apt, '--no-install-recommends', '--download-only', 'install', ...wanted.packages], options)
  }
  // `install` leaves out packages that the machine has; a static binary needs only its own package.
  const present = await readdir(archives)
  const missing = wanted.packages.filter((name) => !present.some((file) => file.startsWith(`${name}_`)))
  if (missing.length > 0) await run('apt-get', [...apt, 'download', ...missing], options)
  const debs = (await readdir(archives)).filter((file) => file.endsWith('.deb'))
  // A C library of another version than the machine's loader would crash.
  return debs.filter((file) => !/^libc(6|-bin)_/.test(file)).map((file) => join(archives, file))
}

/** The machine's apt sources that are Debian archives; for another suite, its main mirror with that suite. */
async function debianSources(suite?: string): Promise<{ list: string[]; stanzas: string[] }> {
  const list: string[] = []
  const stanzas: string[] = []
  const folder = '/etc/apt/sources.list.d'
  const parts = await readdir(folder).catch(() => [])
  for (const file of ['/etc/apt/sources.list', ...parts.sort().map((name) => join(folder, name))]) {
    if (!/\.(list|sources)$/.test(file)) continue
    const text = (await readFile(file, 'utf8').catch(() => '')).replace(/^[ \t]*#.*\n?/gm, '')
    if (file.endsWith('.list')) list.push(...fromList(text, suite))
    else stanzas.push(...fromStanzas(text, suite))
  }
  if (list.length + stanzas.length === 0) throw new Error("none of this machine's apt sources is a Debian archive")
  if (suite)
    return stanzas.length > 0 ? { list: [], stanzas: stanzas.slice(0, 1) } : { list: list.slice(0, 1), stanzas }
  return { list, stanzas }
}

/** A path that ends in /debian or, without another suite, /debian-security; `.list` ends a file of mirrors. */
function isDebian(uri: string, suite?: string): boolean {
  return (suite ? /\/debian(\.list)?\/?$/ : /\/debian(-security)?(\.list)?\/?$/).test(uri)
}

export function fromList(text: string, suite?: string): string[] {
  return text.split('\n').flatMap((line) => {
    const [, options = '', uri = ''] = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s/.exec(line) ?? []
    if (!isDebian(uri, suite)) return []
    return [suite ? `deb ${options}${uri} ${suite} main` : line.trim()]
  })
}

export function fromStanzas(text: string, suite?: string): string[] {
  return text.split(/\n[ \t]*\n/).flatMap((stanza) => {
    const field = (name: string) => new RegExp(`^${name}:(.*(?:\\n[ \\t].*)*)`, 'im')
    const words = (name: string) => (field(name).exec(stanza)?.[1] ?? '').split(/\s+/).filter(Boolean)
    const uris = words('URIs').filter((uri) => isDebian(uri, suite))
    if (uris.length === 0 || !words('Types').includes('deb') || words('Enabled')[0] === 'no') return []
    const changes: Record<string, string> = { Types: 'deb', URIs: uris.join(' ') }
    if (suite) Object.assign(changes, { Suites: suite, Components: 'main' })
    const changed = Object.entries(changes).reduce(
      (result, [name, value]) => result.replace(field(name), `${name}: ${value}`),
      stanza.trim()
    )
    return [changed]
  })
}

/** Makes the absolute links of a package relative: they would point outside the folder that it was unpacked into. */
async function relink(root: string, folder: string): Promise<void> {
  for (const name of await readdir(join(root, folder)).catch(() => [])) {
    const path = join(root, folder, name)
    if (!(await lstat(path)).isSymbolicLink()) continue
    const target = await readlink(path)
    if (!target.startsWith('/')) continue
    await rm(path)
    await symlink(relative(dirname(path), join(root, target)), path)
  }
}
