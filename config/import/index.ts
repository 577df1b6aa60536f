/** Import of other gateways' configurations: the command `jingwei import`. */
import { CORE_SCHEMA, load, mergeTag } from 'js-yaml'
import { mask, unmask } from '../env.ts'
import { importApisix } from './apisix.ts'
import type { Imported } from './draft.ts'
import { Foreign, ImportFault } from './foreign.ts'
import { importKong } from './kong.ts'
import { importKrakend } from './krakend.ts'
import { importTraefik } from './traefik.ts'

export { ImportFault }

const importers = {
  kong: importKong,
  traefik: importTraefik,
  apisix: importApisix,
  krakend: importKrakend
} satisfies Record<string, (root: Foreign) => Imported>

export const importedGateways = Object.keys(importers)

/** Largest file, in characters. */
const mostCharacters = 16 * 1024 * 1024

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: variables of the configuration
/** Returns a variable for the path of a secret in a vault. */
const variableOf = (path: string): string =>
  `\${${path
    .split('?', 1)[0]!
    .toUpperCase()
    .replace(/[^A-Z0-9]+/g, '_')}}`

/** Variables of decK, of APISIX and of Go templates, and secrets of vaults, as variables of this configuration. */
const ownVariables = (text: string): string =>
  text
    .replace(/\$\{\{\s*env\s+\\?["']?(\w+)\\?["']?\s*\}\}/g, '${$1}')
    .replace(/\$\{\{\s*(\w+)\s*\}\}/g, '${$1}')
    .replace(/\$\{\{\s*(\w+)\s*:=([^{}]*)\}\}/g, '${$1:-$2}')
    .replace(/\{vault:\/\/env\/([^{}\s"']+)\}/g, (_, path: string) => variableOf(path))
    .replace(/\{vault:\/\/([^{}\s"']+)\}/g, (_, path: string) => variableOf(`vault-${path}`))
    .replace(/\$env:\/\/([\w/-]+)/gi, (_, path: string) => variableOf(path))
    .replace(/\$secret:\/\/([\w/.-]+)/gi, (_, path: string) => variableOf(`secret-${path}`))
    .replace(/(?<!\$)\{\{-?\s*env\s+\\?["'`](\w+)\\?["'`]\s*-?\}\}/g, '${$1}')
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: variables of the configuration

/** Most values of a file. Aliases of aliases could stand for any number of them. */
const mostValues = 5_000_000
/** Deepest nesting, for which aliases count as their values. */
const deepest = 1000

/** Returns a copy with variables, and without aliases. Throws {ImportFault} for too many values. */
function unmasked(document: unknown): unknown {
  let left = mostValues
  const copy = (value: unknown, depth = 0): unknown => {
    if (--left < 0) throw new ImportFault(`the file has more than ${mostValues} values`)
    if (depth > deepest) throw new ImportFault('recursive alias: an alias refers to a value that contains it')
    if (typeof value === 'string') return unmask(value)
    if (Array.isArray(value)) return (value as unknown[]).map((each) => copy(each, depth + 1))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [unmask(key), copy(each, depth + 1)]))
  }
  return copy(document)
}

/** Returns the configuration for the text of another gateway's file, in YAML or JSON. Throws {ImportFault}. */
export function imported(gateway: string, text: string): Imported {
  if (!Object.hasOwn(importers, gateway)) {
    throw new ImportFault(`import: expected one of ${importedGateways.join(', ')}, found "${gateway}"`)
  }
  if (text.length > mostCharacters) throw new ImportFault('the file is larger than 16 MB')
  let document: unknown
  try {
    document = unmasked(load(mask(ownVariables(text)), { schema: CORE_SCHEMA.withTags(mergeTag) }))
  } catch (error) {
    if (gateway === 'krakend' && text.includes('{{'))
      throw new ImportFault('the file is a template: write it out first, with FC_OUT=out.json krakend check -t -c FILE')
    throw new ImportFault((error as Error).message, { cause: error })
  }
  const root = new Foreign(document, '')
  // Keys for anchors.
  root.skip(...root.keys.filter((key) => key.startsWith('x-')))
  return importers[gateway as keyof typeof importers](root)
}
