// Runs several test files in this process, one after another, so that they load the gateway only once. `npm run test:fast`
// starts it: `node test/helpers/several.ts FILE …`. The subtest `end of FILE` follows those of each file.
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { endOf } from './tally.ts'

/** Teardowns of the file that runs. tap would run them at the end of the process, and would end there early. */
let teardowns: (() => unknown)[] = []
t.teardown = (teardown) => {
  teardowns.unshift(teardown)
}

for (const file of process.argv.slice(2)) {
  t.setTimeout(60_000)
  // Fixtures of each file in folders of its own, as when it runs alone.
  t.testdirName = resolve('.tap/fixtures', file.replaceAll('/', '-'))
  try {
    await import(pathToFileURL(resolve(file)).href)
  } catch (error) {
    t.fail(`${file} cannot be loaded: ${String(error)}`)
  }
  const begun = performance.now()
  // A subtest waits for those before it. Its name has the time that they took, so it cannot be known before they end.
  await t.test('teardown', async () => {
    for (const teardown of teardowns) await teardown()
    teardowns = []
  })
  await t.test(endOf(file, performance.now() - begun), async () => {})
}
