/** Packages that are loaded with the first call. */
import t from 'tap'
import { moduleOnFirstUse, onFirstUse } from '../../plugins/on-first-use.ts'

t.test('the error names a package that cannot be loaded', async (t) => {
  const load = onFirstUse<unknown>('jingwei-no-such-package')
  const message =
    'cannot load the package jingwei-no-such-package (MODULE_NOT_FOUND): ' +
    'if its files were replaced since the process started, restart the process'
  t.throws(load, { message, cause: { code: 'MODULE_NOT_FOUND' } })
  t.throws(load, { message }, 'each call throws')
})

t.test('a package is loaded once', async (t) => {
  const load = onFirstUse<typeof import('dns-packet')>('dns-packet')
  t.type(load().encode, 'function')
  t.equal(load(), load())
})

t.test('a module of the program', async (t) => {
  const { meshKeys } = await import('../../plugins/mesh/chain.ts')
  const load = moduleOnFirstUse<typeof import('../../plugins/mesh-half.mts')>('plugins/mesh-half.mts')
  t.equal(load().meshKeys, meshKeys, 'it is the one that an import gets')
  const missing = moduleOnFirstUse<unknown>('plugins/half.mts')
  t.throws(missing, { message: /^cannot load \/.+\/plugins\/half\.mts \(MODULE_NOT_FOUND\): / })
})
