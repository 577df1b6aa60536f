// For `node --import`: writes the URL of every module that the program loads, of either kind, to LOADED_MODULES.
import { writeFileSync } from 'node:fs'
import { registerHooks } from 'node:module'

const loaded = new Set<string>()
registerHooks({
  load(url, context, next) {
    loaded.add(url)
    return next(url, context)
  }
})
process.on('exit', () => writeFileSync(process.env.LOADED_MODULES!, [...loaded].join('\n')))
