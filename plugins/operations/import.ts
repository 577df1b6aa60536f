/** `import`: converts the file of another gateway. */
import { readFile } from 'node:fs/promises'
import { maskCredentials } from '../../config/credentials.ts'

/** Returns the configuration for a file of another gateway, and writes the summary to stderr. */
export async function importFrom(gateway: string | undefined, file: string | undefined): Promise<string> {
  // Loaded here, since no other command needs it.
  const { imported, importedGateways } = await import('../../config/import/index.ts')
  if (gateway === undefined || file === undefined) {
    const example = 'such as: import kong kong.yml > gateway.yaml'
    throw new Error(`import takes a gateway (${importedGateways.join(', ')}) and a file, ${example}`)
  }
  const text = await readFile(file, 'utf8')
  try {
    const { yaml, summary } = imported(gateway, text)
    process.stderr.write(`${maskCredentials(summary)}\n`)
    return yaml
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`, { cause: error })
  }
}
