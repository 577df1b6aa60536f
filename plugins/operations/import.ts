/** `import`: converts the file of another gateway. */
import { readFile, writeFile } from 'node:fs/promises'
import { maskCredentials } from '../../config/credentials.ts'

/** Returns the configuration for a file of another gateway, and writes the summary to stderr, and files to which it refers. */
export async function importFrom(gateway: string | undefined, file: string | undefined): Promise<string> {
  // Loaded here, since no other command needs it.
  const { imported, importedGateways } = await import('../../config/import/index.ts')
  if (gateway === undefined || file === undefined) {
    const example = 'such as: import kong kong.yml > gateway.yaml'
    throw new Error(`import takes a gateway (${importedGateways.join(', ')}) and a file, ${example}`)
  }
  const text = await readFile(file, 'utf8')
  try {
    const { yaml, summary, files } = imported(gateway, text)
    process.stderr.write(`${maskCredentials(summary)}\n`)
    for (const [name, content] of files) process.stderr.write(`${await written(name, content)}\n`)
    return yaml
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`, { cause: error })
  }
}

/** Writes a file into the current folder, unless there is one. Only its owner can read it, since it may be a key. */
async function written(name: string, content: string): Promise<string> {
  try {
    await writeFile(name, content, { flag: 'wx', mode: 0o600 })
    return `Wrote ${name}, to which the configuration refers`
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const isSame = (await readFile(name, 'utf8')) === content
    return isSame
      ? `${name} is there already`
      : `${name} exists with other content and was not replaced: compare it with the source`
  }
}
