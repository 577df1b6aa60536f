/** `init`: writes a starter repository from the template in `config/starter`. */
import type { Stats } from 'node:fs'
import { lstat, mkdir, open, readdir, readFile, rename, rmdir, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import type { MergedManifest } from './init-manifest.ts'
import { mergeManifest } from './init-manifest.ts'

interface StarterFile {
  /** Path below the folder. */
  readonly path: string
  readonly text: string
}

/** npm writes this file with the first package that it installs. An existing one is completed. */
const manifestName = 'package.json'

/** Files that most projects have. An existing one stays as it is. */
const optional: ReadonlySet<string> = new Set(['.gitignore', 'README.md', 'tsconfig.json'])

/** Files of the starter that a folder has already. */
interface Existing {
  /** The merged `package.json`; null if none exists. */
  readonly merged: MergedManifest | null
  /** Files that stay as they are. */
  readonly skipped: readonly string[]
}

/**
 * Writes the files of a starter repository into a folder, and returns the next steps as text. Nothing is overwritten: files that
 * most projects have are left out if they exist; if any other exists, an error names it, and no file is written. If a file
 * cannot be written, those before it are removed. An existing `package.json` gets the keys that it lacks.
 */
export async function init(folder: string, template: string, version: string): Promise<string> {
  const files = await starterFiles(template, { NAME: packageName(folder), VERSION: version })
  const undo: (() => Promise<void>)[] = []
  const written: string[] = []
  let existing: Existing
  try {
    existing = await refuseExisting(folder, files)
    for (const { path, text } of files) {
      if ((existing.merged !== null && path === manifestName) || existing.skipped.includes(path)) continue
      await write(join(folder, path), text, undo)
      written.push(path)
    }
    // The last step, so that it need not be undone.
    if (existing.merged !== null) await replace(join(folder, manifestName), existing.merged.text, undo)
  } catch (error) {
    for (const remove of undo.reverse()) await remove().catch(() => {}) // a folder stays if somebody else has put a file there
    throw new Error(`init ${folder}: ${(error as Error).message}`, { cause: error })
  }
  const below = relative(process.cwd(), folder)
  const change = below.startsWith('..') ? folder : below
  const kept = existing.merged?.kept ?? []
  const command = (script: string, own: string) => (kept.includes(`scripts.${script}`) ? own : `npm run ${script}`)
  const steps = [
    [kept.includes('scripts.test') ? testCommand : 'npm test', 'tests the gateway with scripted services'],
    [command('check', 'npx jingwei check'), 'reports faults of gateway.yaml'],
    [kept.includes('scripts.start') ? 'npx jingwei start' : 'npm start', 'starts the gateway on http://127.0.0.1:8080']
  ].map(([text = '', what]) => `  ${text.padEnd(19)}  ${what}`)
  return `${folder}: wrote ${written.join(', ')}
${existing.skipped.length === 0 ? '' : `left your ${existing.skipped.join(', ')} as they were\n`}${existing.merged === null ? '' : changesOf(existing.merged)}
Next:
${change === '' ? '' : `  cd ${change}\n`}  npm install          installs jingwei ${version} from your registry; with a tarball instead:
                       mkdir vendor && cp PATH/jingwei-${version}.tgz vendor && npm install ./vendor/jingwei-${version}.tgz
${steps.join('\n')}
`
}

/** Command of the starter's script `test`, for projects that have a script of their own. */
const testCommand = 'node --test "test/**/*.test.ts"'

function changesOf({ added, kept, notes }: MergedManifest): string {
  const lines = [...notes]
  if (added.length > 0) lines.unshift(`added ${added.join(', ')}`)
  if (kept.length > 0) lines.push(`kept your ${kept.join(', ')}, which differ from the starter's`)
  if (kept.includes('scripts.test')) lines.push(`your npm test is what CI runs: let it also run ${testCommand}`)
  return lines.map((line) => `package.json: ${line}\n`).join('')
}

/**
 * Throws if a file exists, or if a file or symbolic link is where a folder is needed: a link may lead out of the repository.
 * The repository's own folder may be a link, since the user names it.
 */
async function refuseExisting(folder: string, files: readonly StarterFile[]): Promise<Existing> {
  const own = await present(stat(folder))
  if (own?.isDirectory() === false) throw new Error('this is not a folder; nothing was written')
  const existing = new Set<string>()
  const skipped: string[] = []
  let merged: MergedManifest | null = null
  for (const { path, text } of files) {
    const steps = path.split(sep)
    for (let depth = 1; depth <= steps.length; depth++) {
      const step = steps.slice(0, depth).join(sep)
      const found = await present(lstat(join(folder, step)))
      if (found?.isDirectory() === true && depth < steps.length) continue
      if (found?.isFile() === true && path === manifestName) {
        try {
          merged = await mergeManifest(folder, await readFile(join(folder, path), 'utf8'), text)
        } catch (error) {
          existing.add(`${path} (${(error as Error).message})`)
        }
      } else if (found?.isFile() === true && optional.has(path)) skipped.push(path)
      else if (found !== null) existing.add(depth < steps.length ? `${step} (not a folder)` : step)
      break
    }
  }
  if (existing.size === 0) return { merged, skipped }
  const what = existing.size === 1 ? 'this file exists' : 'these files exist'
  throw new Error(`${what} already; nothing was written: ${[...existing].join(', ')}; name a new folder`)
}

/** Returns null for a path that does not exist. */
async function present(stats: Promise<Stats>): Promise<Stats | null> {
  try {
    return await stats
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/** Writes a new file and the folders above it, and adds the functions that remove them. */
async function write(file: string, text: string, undo: (() => Promise<void>)[]): Promise<void> {
  const first = await mkdir(dirname(file), { recursive: true })
  if (first !== undefined) {
    const made = [dirname(file)]
    while (made[0] !== first) made.unshift(dirname(made[0]!))
    undo.push(...made.map((folder) => () => rmdir(folder)))
  }
  const handle = await open(file, 'wx')
  undo.push(() => unlink(file))
  try {
    await handle.writeFile(text)
  } finally {
    await handle.close()
  }
}

/** Replaces a file at once: it has either the old text or the new one. */
async function replace(file: string, text: string, undo: (() => Promise<void>)[]): Promise<void> {
  const beside = `${file}.jingwei-init`
  await write(beside, text, undo)
  await rename(beside, file)
}

/** Reads the template. `dot-` in a file name stands for a dot, since npm leaves files such as .gitignore out of packages. */
async function starterFiles(template: string, values: Readonly<Record<string, string>>): Promise<StarterFile[]> {
  const entries = await readdir(template, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name))
  const read = await Promise.all(
    files.map(async (file) => {
      const path = relative(template, file).replaceAll(/(^|[\\/])dot-/g, '$1.')
      const text = await readFile(file, 'utf8')
      return { path, text: text.replaceAll(/%([A-Z]+)%/g, (found, key: string) => values[key] ?? found) }
    })
  )
  return read.sort((a, b) => (a.path < b.path ? -1 : 1))
}

/** Returns the name of a folder as a valid npm package name. */
function packageName(folder: string): string {
  const name = basename(resolve(folder))
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replaceAll(/^[._-]+|[._-]+$/g, '')
  // A package cannot have the name of its own dependency.
  return name === '' || name === 'jingwei' ? 'gateway' : name
}
