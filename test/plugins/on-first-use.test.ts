/** Packages that are loaded with the first call. */
import t from 'tap'
import { onFirstUse } from '../../plugins/on-first-use.ts'

t.test('a package that cannot be loaded', async (t) => {
  const load = onFirstUse<unknown>('jingwei-no-such-package')
  const message =
    'cannot load the package jingwei-no-such-package (MODULE_NOT_FOUND): ' +
    'if its files were replaced since the process started, restart the process'
  t.throws(load, { message, cause: { code: 'MODULE_NOT_FOUND' } })
  t.throws(load, { message }, 'each time')
})

t.test('a package is loaded once', async (t) => {
  const load = onFirstUse<typeof import('dns-packet')>('dns-packet')
  t.type(load().encode, 'function')
  t.equal(load(), load())
})
