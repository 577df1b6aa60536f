/** The command `hash-key`: makes an API key, and prints it with its hash for the configuration. */
import { hash, randomBytes } from 'node:crypto'
import { fstatSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import type { EdgeCommand } from '../../concern-commands.ts'

export const hashKeyCommand: EdgeCommand = {
  name: 'hash-key',
  usage: `  node app.ts hash-key            make an API key, and print it with its hash for consumers[].keyAuth;
                                  with a key on stdin, print its hash
`,
  options: {},
  async run(_load, given) {
    // An argument would be in the shell's history and in the list of processes.
    if (given !== undefined) throw new Error('hash-key reads the key from stdin, not from an argument')
    // A terminal or /dev/null has no key; an empty pipe is a mistake in a script, which must not get the hash of another key.
    const isNew = process.stdin.isTTY || fstatSync(0).isCharacterDevice()
    const key = isNew ? randomBytes(32).toString('base64url') : (await text(process.stdin)).replace(/\r?\n$/, '')
    if (key === '') throw new Error('hash-key: stdin is empty; for a new key, write: hash-key < /dev/null')
    const line = `hash: sha256:${hash('sha256', key)}`
    return isNew ? `key:  ${key}\n${line}` : line
  }
}
