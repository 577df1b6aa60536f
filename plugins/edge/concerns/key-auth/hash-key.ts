/** The command `hash-key`: makes an API key, and prints it with its hash for the configuration. */
import { hash, randomBytes } from 'node:crypto'
import type { EdgeCommand } from '../../concern.ts'

export const hashKeyCommand: EdgeCommand = {
  name: 'hash-key',
  usage: `  node app.ts hash-key            make an API key, and print it with its hash for consumers[].keyAuth;
                                  \`hash-key KEY\` prints the hash of an existing key
`,
  options: {},
  async run(_load, given) {
    const key = given ?? randomBytes(32).toString('base64url')
    const line = `hash: sha256:${hash('sha256', key)}`
    return given === undefined ? `key:  ${key}\n${line}` : line
  }
}
