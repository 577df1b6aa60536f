#!/usr/bin/env node
/**
 * The command `jingwei`. Node opens its inspector on SIGUSR1 unless the signal has a listener, so a listener is added before
 * other modules load. To close the gap before that, run `node --disable-sigusr1`: the option cannot be in the first line,
 * since it would need `env -S`, which Alpine's BusyBox lacks.
 */
import nodeModule from 'node:module' // as a whole: older versions lack names of it, and would fail before the check below
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 2)) {
  process.stderr.write(`jingwei needs Node 24.2 or newer; this is ${process.version}, ${process.execPath}\n`)
  process.exit(1)
}

process.on('SIGUSR1', () => {})

// Caches sources without their types. Not in a folder that all users can write to: cached code is run as it is. Built code
// gains a tenth only.
if (import.meta.filename.endsWith('.ts')) nodeModule.enableCompileCache(join(import.meta.dirname, '../.cache/compiled'))

/**
 * Keeps the young generation small while modules are loaded. Nearly all of their objects survive, so that V8 would enlarge it
 * to its maximum, and an idle gateway would keep 15 MB that it never uses. Not for longer: a large configuration would take a
 * third more CPU to load.
 */
function keepSmall(isSmall: boolean): void {
  setFlagsFromString(`--semi-space-growth-factor=${isSmall ? 1 : 2}`)
}

keepSmall(true)
const { main } = await import('../app.ts')
const { loadWithin } = await import('./on-first-use.ts')
keepSmall(false)
loadWithin((load) => {
  keepSmall(true)
  try {
    return load()
  } finally {
    keepSmall(false)
  }
})
await main(process.argv.slice(2))
