/** The command `hash-password`: prints the hash of a password for the configuration. */
import { text } from 'node:stream/consumers'
import type { EdgeCommand } from '../../concern-commands.ts'
import { hashOf } from './hashes.ts'

export const hashPasswordCommand: EdgeCommand = {
  name: 'hash-password',
  usage: `  node app.ts hash-password       print the hash of the password on stdin, for consumers[].basicAuth
`,
  options: {},
  async run(_load, given) {
    // An argument would be in the shell's history and in the list of processes.
    if (given !== undefined) throw new Error('hash-password reads the password from stdin, not from an argument')
    const password = (await text(process.stdin)).replace(/\r?\n$/, '').normalize('NFC')
    if (password === '') throw new Error('hash-password: stdin is empty; write: printf %s PASSWORD | … hash-password')
    return `hash: "${await hashOf(password)}"`
  }
}
