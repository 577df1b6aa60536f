/** Adds to an existing `package.json` what a starter repository needs, without changing any value that it has. */
import { glob } from 'node:fs/promises'

type Manifest = Readonly<Record<string, unknown>>
type Section = Readonly<Record<string, string>>

export interface MergedManifest {
  readonly text: string
  /** Keys that were added. */
  readonly added: readonly string[]
  /** Keys whose value differs from that of the starter, and stays. */
  readonly kept: readonly string[]
  /** Versions with which the starter's files do not work. */
  readonly notes: readonly string[]
}

const sections = ['engines', 'scripts', 'dependencies', 'devDependencies'] as const

/** The script that `npm init` writes where there is none. */
const placeholder = 'echo "Error: no test specified" && exit 1'

/** @throws {Error} if the starter cannot work with this file; the message says why. */
export async function mergeManifest(folder: string, own: string, starter: string): Promise<MergedManifest> {
  const manifest = parsed(own)
  const template = JSON.parse(starter) as Manifest
  if (manifest.type !== 'module') await assertModules(folder, manifest)
  const added = manifest.type === undefined ? ['type'] : []
  const kept: string[] = []
  const merged: Record<string, unknown> = { ...manifest, type: 'module' }
  for (const name of sections) {
    const present = sectionOf(manifest, name)
    const result: Record<string, string> = { ...present }
    for (const [key, value] of Object.entries(sectionOf(template, name))) {
      // A range of versions may differ, and stand in any list.
      if (name.endsWith('ependencies') && isDependency(manifest, key)) continue
      const old = present[key]
      if (old === undefined || old === placeholder) {
        result[key] = value
        added.push(`${name}.${key}`)
      } else if (old !== value) kept.push(`${name}.${key}`)
    }
    if (Object.keys(result).length > 0) merged[name] = result
  }
  const [indent = '  '] = /^[ \t]+(?=")/m.exec(own) ?? []
  return { text: `${JSON.stringify(merged, null, indent)}\n`, added, kept, notes: notesOn(manifest) }
}

function parsed(text: string): Manifest {
  try {
    const manifest: unknown = JSON.parse(text)
    if (isMapping(manifest) && sections.every((name) => manifest[name] === undefined || isMapping(manifest[name]))) {
      return manifest
    }
  } catch {}
  throw new Error('not a JSON object as npm expects it')
}

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const sectionOf = (manifest: Manifest, name: string) => (manifest[name] ?? {}) as Section

const lists = ['dependencies', 'devDependencies', 'peerDependencies', 'optionalDependencies']

const isDependency = (manifest: Manifest, name: string) => lists.some((list) => name in sectionOf(manifest, list))

/** Reports a version of Fastify for which the starter's plugin does not compile. */
function notesOn(manifest: Manifest): string[] {
  const ranges = lists.flatMap((list) => sectionOf(manifest, list).fastify ?? [])
  const old = ranges.find((range) => /^[~^=v ]*[0-4](\.|$)/.test(String(range)))
  return old === undefined ? [] : [`your fastify is ${old}, and the starter's plugin needs fastify 5`]
}

/** Throws if files of the folder would not work as ES modules, which those of the starter are. */
async function assertModules(folder: string, { type }: Manifest): Promise<void> {
  const needs = 'the starter needs "type": "module"'
  if (type !== undefined)
    throw new Error(`its "type" is ${JSON.stringify(type)}, and ${needs}: npm pkg set type=module`)
  const exclude = ['**/node_modules/**', '**/.git/**']
  for await (const file of glob('**/*.js', { cwd: folder, exclude })) {
    throw new Error(`it has no "type", and ${needs}, by which ${file} becomes an ES module`)
  }
}
