// node autocannon.ts PACKAGES OPTIONS: autocannon as a child process that prints its result on SIGINT, unlike its own command.
import { createRequire } from 'node:module'
import { join } from 'node:path'

interface Instance {
  stop(): void
}
type Autocannon = (options: object, done: (error: Error | null, result: object) => void) => Instance

const [packages, options] = process.argv.slice(2) as [string, string]
const autocannon: Autocannon = createRequire(join(packages, 'package.json'))('autocannon')
const instance = autocannon(JSON.parse(options), (error, result) => {
  if (error !== null) throw error
  process.stdout.write(`${JSON.stringify(result)}\n`)
})
process.on('SIGINT', () => instance.stop())
process.stdout.write('started\n')
