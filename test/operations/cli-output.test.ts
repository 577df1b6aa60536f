// slow: takes about 8 s
/** Commands with a reader that closes the pipe early. */
import { join } from 'node:path'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')
const file = join(t.testdir({ 'gateway.yaml': 'admin: false' }), 'gateway.yaml')

t.test('a reader of stdout that closes early causes no error', async (t) => {
  for (const args of ['schema', `routes ${file}`, '--help', `explain ${file} GET /`]) {
    const command = `set -o pipefail; node ${app} ${args} | head -0`
    const { code, stderr } = await runToEnd('bash', ['-c', command])
    t.strictSame({ code, stderr }, { code: 0, stderr: '' }, args)
  }
  const full = await runToEnd('bash', ['-c', `node ${app} schema > /dev/full`])
  t.match(full, { code: 1, stderr: /^jingwei: cannot write to stdout: ENOSPC.*\n$/ })
})
