/** `init`: writes a starter repository from the template in `config/starter`. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve } from 'node:path'

interface StarterFile {
  /** Path below the folder. */
  readonly path: string
  readonly text: string
}

/**
 * Writes the files of a starter repository into a folder, and returns the next steps as text. Nothing is overwritten: if any
 * of the files exist, an error names them, and no file is written.
 */
export async function init(folder: string, template: string, version: string): Promise<string> {
  const files = await starterFiles(template, { NAME: packageName(folder), VERSION: version })
  const existing = files.filter(({ path }) => existsSync(join(folder, path))).map(({ path }) => path)
  if (existing.length > 0) {
    const what = existing.length === 1 ? 'this file exists' : 'these files exist'
    throw new Error(`init ${folder}: ${what} already; nothing was written:  ${existing.join(', ')}`)
  }
  try {
    for (const { path, text } of files) {
      const file = join(folder, path)
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, text, { flag: 'wx' })
    }
  } catch (error) {
    throw new Error(`init ${folder}: ${(error as Error).message}`, { cause: error })
  }
  const below = relative(process.cwd(), folder)
  const change = below.startsWith('..') ? folder : below
  return `${folder}: wrote ${files.map(({ path }) => path).join(', ')}

Next:
${change === '' ? '' : `  cd ${change}\n`}  npm install          installs jingwei ${version} from your registry; or npm install PATH/jingwei-${version}.tgz
  npm test             tests the gateway with scripted services
  npm run check        reports faults of gateway.yaml
  npm start            starts the gateway on http://127.0.0.1:8080
`
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
