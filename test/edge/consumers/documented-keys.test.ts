// plugins/edge/consumers/README.md says of each key of `edge` whether a consumer can have it.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { edgeKeys } from '../../../plugins/edge/index.ts'

const page = readFileSync(new URL('../../../plugins/edge/consumers/README.md', import.meta.url), 'utf8')

/** Returns the keys in the first column of the table below a line that contains a text. */
function keysBelow(text: string): string[] {
  const table = page.slice(page.indexOf(text)).split('\n\n')[text.startsWith('|') ? 0 : 1]!
  return table
    .split('\n')
    .slice(2)
    .flatMap((row) => [...row.split('|')[1]!.matchAll(/`(\w+)`/g)].map(([, key]) => key!))
}

t.test('each key of `edge` is in one of the two tables', async (t) => {
  const [own, none] = [keysBelow('| concern | for a consumer |'), keysBelow('All other keys are faults:')]
  const levels = edgeKeys.map(({ name, levels }) => ({ name, isOwn: levels.includes('consumer') }))
  t.strictSame(own.toSorted(), levels.filter(({ isOwn }) => isOwn).map(({ name }) => name).toSorted()) // biome-ignore format: one line
  t.strictSame(none.toSorted(), levels.filter(({ isOwn }) => !isOwn).map(({ name }) => name).toSorted()) // biome-ignore format: one line
})
