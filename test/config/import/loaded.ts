/** Imported files as configurations, without what is left to decide. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { load } from 'js-yaml'
import { imported } from '../../../config/import/index.ts'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'

/** Returns the configuration of an import, which has to be valid but for `todo`. The files that it needs exist meanwhile. */
export function loaded(gateway: string, text: string, env: NodeJS.ProcessEnv = {}) {
  const { yaml: draft, summary, files } = imported(gateway, text)
  const found: string[] = []
  const decided = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(decided)
    if (typeof value !== 'object' || value === null) return value
    const { todo, ...rest } = value as Record<string, unknown>
    if (todo !== undefined) found.push(...(todo as string[]))
    return Object.fromEntries(Object.entries(rest).map(([key, each]) => [key, decided(each)]))
  }
  const yaml = JSON.stringify(decided(load(draft)))
  const todo = found.join('\n')
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-import-'))
  try {
    for (const [name, content] of files) writeFileSync(join(folder, name), content)
    const config = parseConfig(yaml, join(folder, 'gateway.yaml'), env)
    return { config, yaml: draft, summary, todo, files }
  } catch (error) {
    throw new Error(`${draft}\n${(error as ConfigError).message}`, { cause: error })
  } finally {
    rmSync(folder, { recursive: true })
  }
}
